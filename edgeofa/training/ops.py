"""Differentiable operators on the compiled kernels: NHWC bfloat16 in and out, float32 inside.

Both return the batch statistics (mean and biased variance) that they used as differentiable
outputs, because calibration images are made by matching them (:mod:`.synthesize`).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from edgeofa.errors import UsageError
from edgeofa.spaces.space import SpaceActivation

__all__ = ["ACTIVATION_CODES", "Affine", "DepthwiseNorm", "NormAct", "affine", "depthwise_infer"]

#: the kernels' activation codes; a space with another activation takes the plain torch path
ACTIVATION_CODES: dict[SpaceActivation | None, int] = {None: 0, "relu": 1, "relu6": 2}

Affine = tuple[Tensor, Tensor]


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _rows(z: Tensor) -> tuple[ctypes.c_long, int, int]:
    rows = z.numel() // z.shape[-1]
    return ctypes.c_long(rows), z.shape[-1], rows


def affine(gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, epsilon: float) -> Affine:
    """Batch norm as ``scale`` and ``offset`` per channel."""
    scale = gamma * torch.rsqrt(var + epsilon)
    return scale, torch.addcmul(beta, mean, scale, value=-1.0)


def _moments_to_statistics(sums: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    moments = sums / rows
    var = (moments[1] - moments[0] * moments[0]).clamp_min_(0.0)
    return moments[0].float(), var.float()


def _statistics(library: ctypes.CDLL, z: Tensor) -> tuple[Tensor, Tensor]:
    count, channels, rows = _rows(z)
    sums = torch.empty(2, channels, dtype=torch.float64)
    library.edgeofa_moments(_pointer(z), count, channels, _pointer(sums[0]), _pointer(sums[1]))
    return _moments_to_statistics(sums, rows)


def norm_apply(
    library: ctypes.CDLL, z: Tensor, line: Affine, act: int, residual: Tensor | None = None
) -> Tensor:
    """``act(z * scale + offset) + residual``, without gradients."""
    count, channels, _ = _rows(z)
    y = torch.empty_like(z)
    library.edgeofa_norm_apply(
        *map(_pointer, (z, line[0], line[1], residual, y)), count, channels, act
    )
    return y


def _norm_coefficients(
    sums: Tensor,
    scale: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float,
    rows: int,
    dmean: Tensor | None,
    dvar: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(k2, k3, dgamma, dbeta) such that ``dz = scale * d + k2 * z + k3``.

    ``sums``: sums of d and of d*z per channel.
    """
    total = sums[0].float()
    inverse = torch.rsqrt(var + epsilon)
    dgamma = (sums[1] - sums[0] * mean).float() * inverse
    k2 = scale * inverse * dgamma / -rows
    k3 = torch.addcmul(scale * total / -rows, k2, mean, value=-1.0)
    if dvar is not None:
        slope = dvar * (2 / rows)
        k2 = k2 + slope
        k3 = torch.addcmul(k3, slope, mean, value=-1.0)
    if dmean is not None:
        k3 = k3 + dmean / rows
    return k2, k3, dgamma, total


class NormAct(torch.autograd.Function):
    """``(z, gamma, beta, residual, act, epsilon, library) -> (y, mean, var)``.

    Batch norm with batch statistics, an activation, then an optional residual.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        gamma: Tensor,
        beta: Tensor,
        residual: Tensor | None,
        act: int,
        epsilon: float,
        library: ctypes.CDLL,
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = z.contiguous()
        mean, var = _statistics(library, z)
        scale, offset = affine(gamma, beta, mean, var, epsilon)
        y = norm_apply(library, z, (scale, offset), act, residual)
        ctx.save_for_backward(z, scale, offset, mean, var)
        ctx.set_materialize_grads(False)
        ctx.act, ctx.epsilon, ctx.library, ctx.residual = (
            act,
            epsilon,
            library,
            residual is not None,
        )
        return y, mean, var

    @staticmethod
    def backward(
        ctx: Any, dy: Tensor | None, dmean: Tensor | None, dvar: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        z, scale, offset, mean, var = ctx.saved_tensors
        dy = torch.zeros_like(z) if dy is None else dy.contiguous()
        count, channels, rows = _rows(z)
        sums = torch.empty(2, channels, dtype=torch.float64)
        ctx.library.edgeofa_norm_reduce(
            *map(_pointer, (z, dy, scale, offset, sums[0], sums[1])), count, channels, ctx.act
        )
        k2, k3, dgamma, dbeta = _norm_coefficients(
            sums, scale, mean, var, ctx.epsilon, rows, dmean, dvar
        )
        dz = torch.empty_like(z)
        ctx.library.edgeofa_norm_grad(
            *map(_pointer, (z, dy, scale, offset, k2, k3, dz)), count, channels, ctx.act
        )
        return dz, dgamma, dbeta, dy if ctx.residual else None, None, None, None


def _depthwise(
    library: ctypes.CDLL,
    z: Tensor,
    line: Affine | None,
    taps: Tensor,
    shape: tuple[int, ...],
    act: int,
) -> tuple[Tensor, Tensor]:
    """(y, sums of y and y*y); ``shape``: HO, WO, rows before, kernel, stride."""
    images, height, width, channels = z.shape
    y = torch.empty(images, shape[0], shape[1], channels, dtype=torch.bfloat16)
    sums = torch.empty(2, channels, dtype=torch.float64)
    scale, offset = (None, None) if line is None else line
    code = library.edgeofa_depthwise(
        *map(_pointer, (z, scale, offset, taps, y, sums[0], sums[1])),
        *(images, height, width, channels, *shape, -1 if line is None else act),
    )
    if code:
        raise UsageError(f"no depthwise kernel for {list(z.shape)}, kernel {shape[3:]}")
    return y, sums


def depthwise_infer(
    library: ctypes.CDLL,
    z: Tensor,
    line: Affine | None,
    taps: Tensor,
    shape: tuple[int, ...],
    act: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Depthwise convolution of ``act(z * scale + offset)``: (y, its mean, its biased variance)."""
    y, sums = _depthwise(library, z, line, taps, shape, act)
    return y, *_moments_to_statistics(sums, y.numel() // y.shape[-1])


class DepthwiseNorm(torch.autograd.Function):
    """Batch norm, activation, depthwise convolution, batch norm, activation, in one.

    ``(z, gamma, beta, weight, gamma2, beta2, shape, act, epsilon, library)
    -> (y, mean, var, mean2, var2)``; without ``gamma`` and ``beta`` (None) the convolution reads
    ``z`` itself, and mean and var are empty. ``weight`` is ``[C, 1, K, K]`` float32; ``shape`` is
    (output height, output width, rows of padding before, K, stride).
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        weight: Tensor,
        gamma2: Tensor,
        beta2: Tensor,
        shape: tuple[int, ...],
        act: int,
        epsilon: float,
        library: ctypes.CDLL,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        z = z.contiguous()
        taps = weight.reshape(len(weight), -1).t().contiguous()
        if gamma is None or beta is None:
            line, mean, var = None, z.new_empty(0), z.new_empty(0)
        else:
            mean, var = _statistics(library, z)
            line = affine(gamma, beta, mean, var, epsilon)
        u, sums = _depthwise(library, z, line, taps, shape, act)
        mean2, var2 = _moments_to_statistics(sums, u.numel() // u.shape[-1])
        line2 = affine(gamma2, beta2, mean2, var2, epsilon)
        y = norm_apply(library, u, line2, act)
        ctx.save_for_backward(z, taps, u, *line2, mean2, var2, mean, var, *(line or ()))
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.act, ctx.epsilon, ctx.library = shape, act, epsilon, library
        return y, mean, var, mean2, var2

    @staticmethod
    def backward(
        ctx: Any,
        dy: Tensor | None,
        dmean: Tensor | None,
        dvar: Tensor | None,
        dmean2: Tensor | None,
        dvar2: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        z, taps, u, scale2, offset2, mean2, var2, mean, var, *line = ctx.saved_tensors
        library, epsilon = ctx.library, ctx.epsilon
        dy = torch.zeros_like(u) if dy is None else dy.contiguous()
        count, channels, rows = _rows(u)
        sums2 = torch.empty(2, channels, dtype=torch.float64)
        library.edgeofa_norm_reduce(
            *map(_pointer, (u, dy, scale2, offset2, sums2[0], sums2[1])), count, channels, ctx.act
        )
        k2, k3, dgamma2, dbeta2 = _norm_coefficients(
            sums2, scale2, mean2, var2, epsilon, rows, dmean2, dvar2
        )
        dz = torch.empty_like(z)
        dtaps = torch.empty(taps.shape, dtype=torch.float64)
        sums = torch.empty(2, channels, dtype=torch.float64)
        scale, offset = line if line else (None, None)
        inputs = (z, scale, offset, taps, u, dy, scale2, offset2, k2, k3)
        code = library.edgeofa_depthwise_grad(
            *map(_pointer, (*inputs, dz, dtaps, sums[0], sums[1])),
            *(*z.shape, *ctx.shape, ctx.act if line else -1, ctx.act),
        )
        if code:
            raise UsageError(f"no depthwise gradient for {list(z.shape)}, {ctx.shape}")
        size = ctx.shape[3]
        dweight = dtaps.float().t().reshape(channels, 1, size, size)
        if not line:
            return dz, None, None, dweight, dgamma2, dbeta2, None, None, None, None
        count, channels, rows = _rows(z)
        k2, k3, dgamma, dbeta = _norm_coefficients(
            sums, line[0], mean, var, epsilon, rows, dmean, dvar
        )
        # the kernel has gated the gradient already, so no activation here
        library.edgeofa_norm_grad(
            *map(_pointer, (z, dz, line[0], line[1], k2, k3, dz)), count, channels, 0
        )
        return dz, dgamma, dbeta, dweight, dgamma2, dbeta2, None, None, None, None
