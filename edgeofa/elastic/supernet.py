"""One elastic torch network for every declared MBConv space.

Each weight is stored once, at its largest size. A subnet uses the first channels of a layer, a
centre crop of its kernel (through learned matrices, chained 7 to 5 to 3, where the space says
``kernel_transform``), the first layers of a stage, and any resolution. Cai et al. 2020,
"Once-for-All: Train One Network and Specialize it for Efficient Deployment".
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeofa.errors import UsageError
from edgeofa.spaces.space import Layer, Space, SpaceActivation, Stage, Subnet, make_divisible

__all__ = ["ElasticBlock", "ElasticConv", "SqueezeExcite", "Supernet", "activate", "edge_padding"]


def edge_padding(
    size: int, kernel: int, stride: int, padding: Literal["same", "symmetric"]
) -> tuple[int, int]:
    """Zero rows (or columns) before and after an axis of ``size``.

    ``same`` is TensorFlow's rule: output ``ceil(size / stride)``, the odd row goes after.
    """
    if padding == "symmetric":
        return kernel // 2, kernel // 2
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def activate(x: Tensor, activation: SpaceActivation) -> Tensor:
    if activation == "relu":
        return F.relu(x)
    return F.relu6(x) if activation == "relu6" else F.hardswish(x)


class ElasticConv(nn.Module):
    """A convolution without bias and its batch norm, used up to any width."""

    def __init__(self, out: int, inputs: int, kernel: int, epsilon: float, fan_in: int):
        super().__init__()
        weight = torch.randn(out, inputs, kernel, kernel) * math.sqrt(2 / fan_in)
        self.weight = nn.Parameter(weight)
        self.norm = nn.BatchNorm2d(out, eps=epsilon)

    def normalise(self, x: Tensor) -> Tensor:
        """Batch norm of the first channels; in training, batch statistics, running ones kept."""
        norm, width = self.norm, x.shape[1]
        return F.batch_norm(
            x,
            norm.get_buffer("running_mean")[:width],
            norm.get_buffer("running_var")[:width],
            norm.weight[:width],
            norm.bias[:width],
            self.training,
            norm.momentum or 0.0,
            norm.eps,
        )


class SqueezeExcite(nn.Module):
    """Squeeze-excite whose bottleneck follows the width of its input."""

    def __init__(self, mid: int):
        super().__init__()
        self.reduce = nn.Conv2d(mid, self.inner(mid), 1)
        self.expand = nn.Conv2d(self.inner(mid), mid, 1)

    @staticmethod
    def inner(mid: int) -> int:
        """Width of the bottleneck for ``mid`` channels, as in once-for-all."""
        return make_divisible(mid // 4, 8)

    def forward(self, x: Tensor) -> Tensor:
        mid = x.shape[1]
        inner = self.inner(mid)
        reduce, expand = self.reduce, self.expand
        y = x.mean((2, 3), keepdim=True)
        y = F.relu(F.conv2d(y, reduce.weight[:inner, :mid], reduce.get_parameter("bias")[:inner]))
        y = F.conv2d(y, expand.weight[:mid, :inner], expand.get_parameter("bias")[:mid])
        return x * F.hardsigmoid(y)


class ElasticBlock(nn.Module):
    """One MBConv at its largest: expansion, depthwise convolution, squeeze-excite, projection."""

    def __init__(self, space: Space, stage: Stage, cin: int, position: int):
        super().__init__()
        self.cin, self.cout = cin, stage.out
        self.stride = stage.stride if position == 0 else 1
        self.residual = self.stride == 1 and cin == stage.out
        self.activation: SpaceActivation = stage.activation
        self.padding: Literal["same", "symmetric"] = space.padding
        epsilon = space.batch_norm_epsilon
        self.expands, self.largest_kernel = stage.expands_at(position), stage.kernels[-1]
        mid = make_divisible(cin * self.expands[-1])
        #: an expansion of 1 has no expanding convolution, so it cannot share a block with others
        self.expand = None if self.expands == (1,) else ElasticConv(mid, cin, 1, epsilon, cin)
        taps = self.largest_kernel**2
        self.depthwise = ElasticConv(mid, 1, self.largest_kernel, epsilon, taps)
        #: from the centre crop of the next larger kernel to a kernel of this size
        self.matrices = nn.ParameterDict(
            {
                f"to{k}": nn.Parameter(torch.eye(k * k))
                for k in (stage.kernels[:-1] if space.kernel_transform else ())
            }
        )
        self.kernels = stage.kernels
        self.squeeze = SqueezeExcite(mid) if stage.se else None
        self.project = ElasticConv(stage.out, mid, 1, epsilon, mid)

    def width(self, layer: Layer) -> int:
        """Expanded channels of a choice."""
        return make_divisible(self.cin * layer.expand)

    def kernel_weight(self, layer: Layer) -> Tensor:
        """Depthwise weight ``[mid, 1, kernel, kernel]`` of a choice."""
        weight = self.depthwise.weight[: self.width(layer)]
        size = self.largest_kernel
        for kernel in reversed(self.kernels[:-1]):
            if size <= layer.kernel:
                break
            border = (size - kernel) // 2
            weight = weight[:, :, border : size - border, border : size - border]
            size = kernel
            if f"to{kernel}" in self.matrices:
                flat = weight.reshape(len(weight), -1)
                weight = F.linear(flat, self.matrices[f"to{kernel}"]).view(-1, 1, kernel, kernel)
        return weight

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        y, mid = x, self.width(layer)
        if self.expand is not None:
            y = F.conv2d(y, self.expand.weight[:mid])
            y = activate(self.expand.normalise(y), self.activation)
        y = padded_conv(y, self.kernel_weight(layer), self.stride, self.padding, mid)
        y = activate(self.depthwise.normalise(y), self.activation)
        if self.squeeze is not None:
            y = self.squeeze(y)
        y = self.project.normalise(F.conv2d(y, self.project.weight[:, :mid]))
        return y + x if self.residual else y


def padded_conv(
    x: Tensor, weight: Tensor, stride: int, padding: Literal["same", "symmetric"], groups: int = 1
) -> Tensor:
    kernel = weight.shape[-1]
    top, bottom = edge_padding(x.shape[2], kernel, stride, padding)
    left, right = edge_padding(x.shape[3], kernel, stride, padding)
    if top == bottom and left == right:
        return F.conv2d(x, weight, None, stride, (top, left), 1, groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, 1, groups)


class Supernet(nn.Module):
    """The elastic network of a space, randomly initialised.

    Call it with images ``[N, 3, R, R]`` (preprocessed, see ``space.preprocess``) and a subnet; it
    returns logits ``[N, classes]``. The images may have another size than the subnet's resolution.
    """

    def __init__(self, space: Space):
        super().__init__()
        self.space = space
        epsilon = space.batch_norm_epsilon
        taps = 3 * space.stem.kernel**2
        self.stem = ElasticConv(space.stem.out, 3, space.stem.kernel, epsilon, taps)
        stages, cin = [], space.stem.out
        for stage in space.stages:
            blocks = []
            for position in range(stage.depths[-1]):
                blocks.append(ElasticBlock(space, stage, cin, position))
                cin = stage.out
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        self.head = ElasticConv(space.head.expand, cin, 1, epsilon, cin)
        width = space.head.expand
        self.mix = nn.Conv2d(width, space.head.mix, 1, bias=False) if space.head.mix else None
        self.classifier = nn.Linear(space.head.mix or width, space.classes)

    def block(self, stage: int, position: int) -> ElasticBlock:
        blocks = cast(nn.ModuleList, self.stages[stage])
        return cast(ElasticBlock, blocks[position])

    def forward(self, x: Tensor, subnet: Subnet) -> Tensor:
        space = self.space
        if x.ndim != 4 or x.shape[1] != 3:
            raise UsageError(f"images are [N, 3, height, width], not {list(x.shape)}")
        y = padded_conv(x, self.stem.weight, space.stem.stride, space.padding)
        y = activate(self.stem.normalise(y), space.stem.activation)
        for i, layers in enumerate(subnet.stages):
            for j, layer in enumerate(layers):
                y = self.block(i, j)(y, layer)
        y = activate(self.head.normalise(F.conv2d(y, self.head.weight)), space.head.activation)
        y = y.mean((2, 3), keepdim=True)
        if self.mix is not None:
            y = activate(self.mix(y), space.head.activation)
        logits: Tensor = self.classifier(y.flatten(1))
        return logits
