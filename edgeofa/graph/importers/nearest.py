"""What to use instead of an operator that the graph does not know."""

from __future__ import annotations

_SMOOTH = "hard-sigmoid (relu6(x + 3) / 6) or hard-swish (x relu6(x + 3) / 6)"
_RELU = "relu or relu6"
_UPSAMPLING = "none: nothing here enlarges an image; let the network end before it"
_NEAREST = {
    "logistic": _SMOOTH,
    "sigmoid": _SMOOTH,
    "tanh": _SMOOTH,
    "silu": _SMOOTH,
    "swish": _SMOOTH,
    "mish": _SMOOTH,
    "erf": _SMOOTH,
    "gelu": _SMOOTH,
    "leakyrelu": _RELU,
    "prelu": _RELU,
    "elu": _RELU,
    "selu": _RELU,
    "softplus": _RELU,
    "relun1to1": _RELU,
    "abs": _RELU,
    "concatenation": "add, of branches with as many channels",
    "concat": "add, of branches with as many channels",
    "sub": "add, with the weights before it negated",
    "div": "a multiplication by a constant before the export",
    "maximum": "max pooling, or relu",
    "max": "max pooling, or relu",
    "reducemax": "max pooling over the whole image",
    "sum": "mean over height and width, or add",
    "reducesum": "mean over height and width",
    "transposeconv": _UPSAMPLING,
    "convtranspose": _UPSAMPLING,
    "resizebilinear": _UPSAMPLING,
    "resizenearestneighbor": _UPSAMPLING,
    "resize": _UPSAMPLING,
    "upsample": _UPSAMPLING,
    "conv3d": "conv2d",
    "batchmatmul": "fully connected, with constant weights",
    "instancenormalization": "batch normalisation, folded before the export",
    "layernormalization": "batch normalisation, folded before the export",
    "l2normalization": "leave it to the application, after the network",
    "argmax": "leave it to the application, after the network",
    "topk": "leave it to the application, after the network",
    "logsoftmax": "softmax",
    "qlinearconv": "QuantizeLinear and DequantizeLinear around float operators (QDQ format)",
    "qlinearmatmul": "QuantizeLinear and DequantizeLinear around float operators (QDQ format)",
    "qgemm": "QuantizeLinear and DequantizeLinear around float operators (QDQ format)",
    "qlinearadd": "QuantizeLinear and DequantizeLinear around float operators (QDQ format)",
    "convinteger": "static quantisation (QDQ format)",
    "matmulinteger": "static quantisation (QDQ format)",
    "dynamicquantizelinear": "static quantisation (QDQ format)",
    "lstm": "convolutions over time",
    "gru": "convolutions over time",
    "rnn": "convolutions over time",
    "unidirectionalsequencelstm": "convolutions over time",
}
_ALL = (
    "convolution, depthwise convolution, fully connected, add, mul, mean over height and width, "
    "average and max pooling, pad, relu, relu6, hard-swish, softmax, reshape"
)


def nearest_form(kind: str) -> str:
    """The nearest form that is supported, for the hint of an error."""
    known = _NEAREST.get(kind.lower().replace("_", ""))
    return f"nearest form: {known}" if known else f"supported are {_ALL}"
