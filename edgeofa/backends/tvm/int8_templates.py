"""The templates of int8 convolutions: knobs, defaults, operands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeofa.backends.tvm import int8_conv, int8_depthwise
from edgeofa.backends.tvm.int8_constants import Residual, header, rescaling_mode
from edgeofa.backends.tvm.int8_isa import Ints, Isa, Mode
from edgeofa.backends.tvm.int8_machine import activation_limits, isa_of, quantizations
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call, Config, Knobs, Template
from edgeofa.graph.int8_kernels import activation_range, add_multipliers, linear_multipliers
from edgeofa.graph.ir import Array

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

#: by the number that stands for each in ``statics``
_MODES: tuple[Mode, Mode] = ("right", "any")


class _Numbers(NamedTuple):
    """Bias and rescaling of every output channel, and what all rescalings need."""

    bias: Ints
    multiplier: Ints
    shift: Ints
    mode: Mode


def _linear_header(call: Call, isa: Isa) -> Array:
    source, between, result = quantizations(call)
    if call.residual is None:
        return header(isa, source.zero_point, activation_limits(call.kernel.activation, result))
    other = call.quantizations[1]
    numbers = add_multipliers((between, other), result)
    low, high = activation_range(call.kernel.activation, between)
    zero = between.zero_point
    first, second = numbers.inputs
    residual = Residual(low - zero, high - zero, other.zero_point, (first, second, numbers.output))
    limits = activation_limits(call.residual.activation, result)
    return header(isa, source.zero_point, limits, residual)


class _Linear(Template):
    """What convolutions share: one function for both ways of rescaling, biases that carry the
    input's zero point."""

    @abstractmethod
    def taps(self, weight: Array) -> Array:
        """The weights of one output channel in each row."""

    @abstractmethod
    def packed(
        self, kernel: Kernel, isa: Isa, config: Config, weight: Array, numbers: _Numbers
    ) -> tuple[Array, Array]:
        """Weights, and ``numbers``, block by block in the order that they are read."""

    def statics(self, call: Call) -> tuple[int, ...]:
        source, between, _ = quantizations(call)
        _, shift = linear_multipliers(call.op, source, between)
        return (_MODES.index(rescaling_mode(shift)),)

    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:
        isa = isa_of(machine)
        source, between, _ = quantizations(call)
        weight, bias = call.op.linear
        # the sum of w * (x - zero) is the sum of w * x less what does not depend on x
        offset = source.zero_point + isa.input_offset
        folded = bias.astype(np.int64) - offset * self.taps(weight).sum(axis=1, dtype=np.int64)
        multiplier, shift = linear_multipliers(call.op, source, between)
        channels = call.kernel.output[-1]
        numbers = _Numbers(
            folded,
            np.broadcast_to(multiplier, channels),
            np.broadcast_to(shift, channels),
            rescaling_mode(shift),
        )
        packed, blocks = self.packed(call.kernel, isa, config, weight, numbers)
        return packed, np.concatenate([_linear_header(call, isa), blocks])


class Conv(_Linear):
    """Dense convolutions and fully connected layers.

    Knobs: a tile is ``pixels`` times ``blocks`` of channels, ``outer`` which of the two is walked
    over in the outer loop where pixels are read as they lie.
    """

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:  # noqa: ARG002 - all of them
        return kernel.dtype == "int8" and kernel.kind in ("conv2d", "fully_connected")

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002
        return {
            "pixels": (1, 2, 3, 4, 6, 8) if machine.is_arm else (1, 2, 3, 4, 6, 8, 12),
            "blocks": (1, 2) if machine.dot == "mlal" else (1, 2, 3, 4),
            "outer": ("pixels", "channels"),
        }

    def default(self, kernel: Kernel, machine: Machine) -> Config:
        isa = isa_of(machine)
        count = -(-kernel.output[-1] // isa.block)
        most = {"mlal": 1, "sdot": 4, "vnni": 4, "none": 2}[machine.dot]
        blocks = next(b for b in range(min(most, count), 0, -1) if count % b == 0 or b == 2)
        if machine.dot == "mlal":
            # a short reduction with a tail is unrolled whole: less fits into the registers
            depth = kernel.input[-1] * kernel.window[0] * kernel.window[1]
            pixels = 3 if depth == 24 else 4
        else:
            registers = machine.registers - 4 if machine.registers > 16 else 12
            pixels = max(p for p in (1, 2, 3, 4, 6, 8) if p * blocks <= registers - blocks)
        return {"pixels": pixels, "blocks": blocks, "outer": "pixels"}

    def function(
        self, kernel: Kernel, machine: Machine, config: Config, statics: tuple[int, ...], name: str
    ) -> PrimFunc:
        return int8_conv.build(kernel, isa_of(machine), config, _MODES[statics[0]], name)

    def taps(self, weight: Array) -> Array:
        return weight.reshape(len(weight), -1)

    def packed(
        self, kernel: Kernel, isa: Isa, config: Config, weight: Array, numbers: _Numbers
    ) -> tuple[Array, Array]:
        tile = int8_conv.tiling(kernel, isa, config)
        blocks = int8_conv.pack_constants(tile, isa, *numbers)
        return int8_conv.pack_weights(tile, isa, self.taps(weight)), blocks

    def scratch_bytes(self, kernel: Kernel, machine: Machine, config: Config) -> int:
        return int8_conv.scratch_bytes(kernel, int8_conv.tiling(kernel, isa_of(machine), config))


class Depthwise(_Linear):
    """Depthwise convolutions. ``pixels`` of a row are a tile, by one block of channels."""

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:  # noqa: ARG002 - all of them
        kind, dtype = kernel.kind, kernel.dtype
        return dtype == "int8" and kind == "depthwise_conv2d" and kernel.residual is None

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002
        return {"pixels": (1, 2, 3, 4, 5, 6, 7, 8)}

    def default(self, kernel: Kernel, machine: Machine) -> Config:
        # on x86 wider tiles of larger windows are hardly faster, and twice as long in compilation
        large = not machine.is_arm and (kernel.window != (3, 3) or kernel.stride != (1, 1))
        # on Arm a pixel more of a small window only lengthens the code
        small = machine.is_arm and kernel.window == (3, 3)
        most = 2 if machine.registers == 16 or large or small else 4
        # tiles that are even: a narrow rest would be code of its own
        options = (most, most + 1, max(most - 1, 2))
        width = kernel.output[-2]
        return {"pixels": next((p for p in options if width % p == 0), most)}

    def function(
        self, kernel: Kernel, machine: Machine, config: Config, statics: tuple[int, ...], name: str
    ) -> PrimFunc:
        mode = _MODES[statics[0]]
        return int8_depthwise.build(kernel, isa_of(machine), config, mode, name)

    def taps(self, weight: Array) -> Array:
        return weight.reshape(-1, weight.shape[-1]).T

    def packed(
        self,
        kernel: Kernel,
        isa: Isa,
        config: Config,  # noqa: ARG002 - it does not depend on the tile
        weight: Array,
        numbers: _Numbers,
    ) -> tuple[Array, Array]:
        blocks = int8_depthwise.pack_constants(kernel, isa, *numbers)
        return int8_depthwise.pack_weights(kernel, isa, weight[0]), blocks

    def scratch_bytes(self, kernel: Kernel, machine: Machine, config: Config) -> int:  # noqa: ARG002
        return int8_depthwise.scratch_bytes(kernel, isa_of(machine))


TEMPLATES: tuple[Template, ...] = (Conv(), Depthwise())
