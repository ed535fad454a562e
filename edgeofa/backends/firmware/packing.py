"""Weights and requantisation constants as the kernels of targets/runtime/mcu read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeofa.backends.firmware.assembly import depthwise_words
from edgeofa.graph.int8_kernels import linear_multipliers
from edgeofa.graph.ir import Array, Op, Quantization

#: the order in which four neighbouring channels are widened: two instructions take every second
_WIDENED = (0, 2, 1, 3)
#: right shifts that the kernels' four-instruction form takes
_LEAST_SHIFT, _LARGEST_SHIFT = 2, 31
_LEAST_MULTIPLIER = 1 << 30
#: of an output channel's constants
QUANT_BYTES = 12


@dataclass(frozen=True, eq=False)
class Requantization:
    """int32 (channels, 3): (bias, m', 2**(32-n)); where that is impossible (bias, m, shift)."""

    constants: Array
    raw: bool


def fast_form(multiplier: int, shift: int) -> tuple[int, int] | None:
    """(m', 2**(32 - n)) of a TFLite multiplier and shift; None where they have no such form."""
    if not (_LEAST_SHIFT <= -shift <= _LARGEST_SHIFT and multiplier >= _LEAST_MULTIPLIER):
        return None
    return 2 * multiplier - (1 << 32), 1 << (32 + shift)


def requantization(op: Op, qx: Quantization, qy: Quantization) -> Requantization:
    """The constants of an operator with weights, one row per output channel."""
    _, bias = op.linear
    multipliers, shifts = (np.broadcast_to(a, bias.shape) for a in linear_multipliers(op, qx, qy))
    forms = [fast_form(int(m), int(s)) for m, s in zip(multipliers, shifts, strict=True)]
    fast = [form for form in forms if form is not None]
    raw = len(fast) < len(forms)
    pairs = np.stack([multipliers, shifts], axis=1) if raw else np.array(fast, np.int64)
    constants = np.concatenate([bias.astype(np.int64)[:, np.newaxis], pairs], axis=1)
    return Requantization(constants.astype(np.int32), raw)


def padded_rows(rows: Array, multiple: int) -> Array:
    """Rows of zeros after ``rows`` up to a multiple."""
    missing = -len(rows) % multiple
    return np.pad(rows, [(0, missing), *[(0, 0)] * (rows.ndim - 1)])


def widened_order(values: Array) -> Array:
    """The last axis in the order in which inputs are widened."""
    if values.shape[-1] % 4:
        return values
    fours = values.reshape(*values.shape[:-1], -1, 4)[..., list(_WIDENED)]
    return fours.reshape(values.shape)


def _padded_last(values: Array, size: int) -> Array:
    return np.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, size - values.shape[-1])])


def _as_words(values: Array) -> Array:
    """int8, four to a word along the last axes."""
    return np.frombuffer(np.ascontiguousarray(values).tobytes(), "<u4").astype(np.uint32)


def conv_words(weight: Array, stored: int, words: int) -> Array:
    """OHWI weights, two output channels together: for each pair of inputs (k, k') of a kernel row,
    padded to ``words`` pairs, a word (o k, o' k, o k', o' k').

    Args:
        stored: int16 that a pixel of the widened input takes.
    """
    runs = _padded_last(widened_order(weight), stored)
    runs = _padded_last(runs.reshape(*runs.shape[:2], -1), 2 * words)
    pairs = padded_rows(runs, 2).reshape(-1, 2, weight.shape[1], words, 2)
    return _as_words(pairs.transpose(0, 2, 3, 4, 1))


def dense_words(weight: Array, words: int, merged: bool) -> Array:
    """(out, in) weights, four outputs together: for each pair of inputs a word of outputs 0 and 1
    as in :func:`conv_words`, then one of outputs 2 and 3.

    Args:
        merged: each two bytes make the int16 ``w + 256 w'``.
    """
    runs = padded_rows(_padded_last(widened_order(weight), 2 * words), 4)
    fours = runs.reshape(-1, 2, 2, words, 2).copy()
    if merged:
        # the byte of a negative w borrows from the one above; weights of -128 do not exist
        fours[:, :, 1] -= fours[:, :, 0] < 0
    return _as_words(fours.transpose(0, 3, 1, 4, 2))


def depthwise_data(weight: Array, stride: int, constants: Array) -> Array:
    """For each channel its constants, then its kernel rows as int16 pairs; int32 (channels, n)."""
    _, height, width, channels = weight.shape
    taps = weight[0].astype(np.int32)
    words = []
    for pair in depthwise_words(width, stride):
        low = taps[:, pair[0]] & 0xFFFF
        words.append(low if len(pair) == 1 else low | taps[:, pair[1]] << 16)
    rows = np.stack(words, axis=1).reshape(height * len(words), channels).T
    return np.concatenate([constants, rows], axis=1).astype(np.int32)
