"""PyTorch module to graph, through ``torch.export``.

Batch norms, constant factors and offsets are folded into the convolution before them, zero padding
into the convolution after them, activations fused, NCHW turned into NHWC. Hard sigmoid becomes
``relu6(x + 3)`` with its 1/6 folded into the next linear operator.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeofa.errors import UsageError
from edgeofa.graph.importers.aten import HANDLERS
from edgeofa.graph.importers.translator import Translator
from edgeofa.graph.ir import Graph


def import_module(module: nn.Module, example: torch.Tensor, name: str) -> Graph:
    """The float32 graph of a module in ``eval`` mode, batch 1.

    Args:
        example: an input, NCHW; only its shape matters, and its batch is ignored.

    Raises:
        UnsupportedOperator: an operator that the graph does not know; ``where`` is its module.
    """
    if module.training:
        raise UsageError("a module in training mode", where=name, hint="call eval() first")
    if example.ndim != 4:
        raise UsageError(f"the example must be NCHW, not {tuple(example.shape)}", where=name)
    with torch.no_grad():
        program = torch.export.export(module, (example[:1],), strict=False)
    return Translator(program, name, tuple(example.shape), HANDLERS).graph()
