"""Convolutions and pools in numpy, for any batch; float32 or float64, NHWC.

The same code serves float32 graphs and, on integers held in floats, int8 ones: a float32 sum of
integers is exact while every partial sum stays below 2**24.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeofa.graph.ir import Array, Pads, Pair

#: working sets are cut to about this size, so that they stay in the second-level cache
_CHUNK_ELEMENTS = 1 << 17
_IM2COL_ELEMENTS = 1 << 22


def pad_image(x: Array, pads: Pads, value: float = 0) -> Array:
    """``x`` with ``value`` around height and width; ``x`` itself where there is nothing to add."""
    top, bottom, left, right = pads
    if pads == (0, 0, 0, 0):
        return x
    n, height, width, channels = x.shape
    out = np.full((n, height + top + bottom, width + left + right, channels), value, dtype=x.dtype)
    out[:, top : top + height, left : left + width] = x
    return out


def windows(x: Array, kernel: Pair, stride: Pair) -> Array:
    """View of shape (n, height out, width out, channels, kernel height, width)."""
    return sliding_window_view(x, kernel, axis=(1, 2))[:, :: stride[0], :: stride[1]]


def convolve(x: Array, weight: Array, stride: Pair, pads: Pads) -> Array:
    """Convolution without bias; ``weight`` is OHWI and of ``x``'s type."""
    cout, *kernel, cin = weight.shape
    if kernel == [1, 1] and pads == (0, 0, 0, 0):
        return x[:, :: stride[0], :: stride[1]] @ weight.reshape(cout, cin).T
    padded = pad_image(x, pads)
    patches = windows(padded, (kernel[0], kernel[1]), stride).transpose(0, 1, 2, 4, 5, 3)
    n, height, width = patches.shape[:3]
    matrix = weight.reshape(cout, -1).T
    out = np.empty((n, height, width, cout), dtype=x.dtype)
    step = max(1, _IM2COL_ELEMENTS // (height * width * matrix.shape[0]))
    for i in range(0, n, step):
        rows = patches[i : i + step].reshape(-1, matrix.shape[0])
        out[i : i + step] = (rows @ matrix).reshape(-1, height, width, cout)
    return out


def convolve_depthwise(x: Array, weight: Array, stride: Pair, pads: Pads) -> Array:
    """Depthwise convolution without bias, by shifted multiply-adds; ``weight`` is 1HWC."""
    kernel_height, kernel_width = weight.shape[1:3]
    down, along = stride
    padded = pad_image(x, pads)
    n, height_in, width_in, channels = padded.shape
    height = (height_in - kernel_height) // down + 1
    width = (width_in - kernel_width) // along + 1
    out = np.empty((n, height, width, channels), dtype=x.dtype)
    rows = min(height, max(1, _CHUNK_ELEMENTS // (width * channels)))
    product = np.empty((rows, width, channels), dtype=x.dtype)
    reach = (width - 1) * along + 1
    for image, result in zip(padded, out, strict=True):
        for y in range(0, height, rows):
            acc = result[y : y + rows]
            scratch = product[: len(acc)]
            for i in range(kernel_height):
                first = y * down + i
                band = image[first : first + (len(acc) - 1) * down + 1 : down]
                for j in range(kernel_width):
                    view = band[:, j : j + reach : along]
                    if i == j == 0:
                        np.multiply(view, weight[0, i, j], out=acc)
                    else:
                        np.multiply(view, weight[0, i, j], out=scratch)
                        acc += scratch
    return out


def window_counts(shape: tuple[int, ...], kernel: Pair, stride: Pair, pads: Pads) -> Array:
    """Real pixels under each window, shape (height out, width out, 1)."""
    ones = pad_image(np.ones((1, *shape[1:3], 1), dtype=np.int64), pads)
    counts: Array = windows(ones, kernel, stride).sum(axis=(4, 5))[0]
    return counts
