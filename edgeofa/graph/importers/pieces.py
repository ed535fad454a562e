"""Operators that importers put in where a file has one that the graph has not."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeofa.graph.ir import DType


def channel_ones(channels: int, precision: DType) -> dict[str, Any]:
    """Weight, bias and scales of a 1x1 depthwise convolution that changes no number: it carries an
    activation, or quantises otherwise, with the one rounding that TFLite and onnxruntime do."""
    if precision == "float32":
        return {
            "weight": np.ones((1, 1, 1, channels), np.float32),
            "bias": np.zeros(channels, np.float32),
        }
    return {
        "weight": np.ones((1, 1, 1, channels), np.int8),
        "bias": np.zeros(channels, np.int32),
        "weight_scale": np.ones(channels, np.float32),
    }
