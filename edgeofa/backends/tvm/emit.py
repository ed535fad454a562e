"""Writes TIR statement by statement, so that a kernel's code is what its author wrote.

The kernels name their register tiles, and some their instructions (``smlal``, ``vpdpbusd``); a
schedule's rewriting would stand between them and the machine. Buffers are flat, indices count
elements, and every loop that is not a :meth:`Emitter.loop` is unrolled by Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import ir, tirx

Expr = Any
Buffer = Any


def constant(value: int | Expr) -> Expr:
    """An int32 constant; an expression as it is."""
    return tirx.IntImm("int32", value) if isinstance(value, int) else value


def splat(value: int | Expr, lanes: int) -> Expr:
    """``value`` in every lane."""
    return constant(value) if lanes == 1 else tirx.Broadcast(constant(value), lanes)


def splat_float(value: float, lanes: int) -> Expr:
    """A float32 constant in every lane."""
    number = tirx.FloatImm("float32", value)
    return number if lanes == 1 else tirx.Broadcast(number, lanes)


def lane(value: Expr, number: int, lanes: int, copies: int) -> Expr:
    """``copies`` times one lane of a vector of ``lanes``."""
    one = value if lanes == 1 else tirx.Shuffle([value], [constant(number)])
    return one if copies == 1 else tirx.Broadcast(one, copies)


def load(buffer: Buffer, index: int | Expr, lanes: int = 1) -> Expr:
    """``lanes`` neighbouring elements."""
    return tirx.BufferLoad(buffer, [_place(index, lanes)])


def convert(dtype: str, value: Expr) -> Expr:
    """The value in another type, lane by lane."""
    return tirx.Cast(dtype, value)


def bits(dtype: str, value: Expr) -> Expr:
    """The same bits as another type of the same size."""
    return tirx.reinterpret(dtype, value)


def instruction(dtype: str, name: str, *arguments: Expr) -> Expr:
    """An LLVM intrinsic without side effects."""
    return tirx.call_llvm_pure_intrin(dtype, name, *arguments)


def low_half(dtype: str, value: Expr) -> Expr:
    """The first half of a vector; ``dtype`` is the half's."""
    return tirx.vectorlow(dtype, value)


def high_half(dtype: str, value: Expr) -> Expr:
    """The second half of a vector; ``dtype`` is the half's."""
    return tirx.vectorhigh(dtype, value)


def smaller(a: Expr, b: Expr) -> Expr:
    """Lane by lane."""
    return tirx.Min(constant(a), constant(b))


def larger(a: Expr, b: Expr) -> Expr:
    """Lane by lane."""
    return tirx.Max(constant(a), constant(b))


def pieces(count: int, lanes: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of the vectors that ``count`` elements make: whole ones of ``lanes`` (a
    power of two), the last ones by halves."""
    at, width = 0, lanes
    while at < count:
        while width > count - at:
            width //= 2
        yield at, width
        at += width


def _place(index: int | Expr, lanes: int) -> Expr:
    return constant(index) if lanes == 1 else tirx.Ramp(constant(index), constant(1), lanes)


def _sequence(statements: Sequence[Any]) -> Any:
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


class Emitter:
    """The statements of one function, in order; loops and conditions nest as ``with`` blocks."""

    def __init__(self) -> None:
        self._blocks: list[list[Any]] = [[]]
        self._names = 0
        self._parameters: list[Any] = []

    def _name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def parameter(self, name: str, elements: int, dtype: str) -> Buffer:
        """The function's next argument: a pointer, seen as a flat buffer."""
        pointer = tirx.Var(name, ir.PointerType(ir.PrimType(dtype)))
        self._parameters.append(pointer)
        buffer = tirx.decl_buffer((elements,), dtype, self._name(name), data=pointer, layout=None)
        self._blocks[0].append(tirx.DeclBuffer(buffer, data=pointer))
        return buffer

    def bind(self, value: Expr, name: str = "v") -> Expr:
        """Give a value a name: it is computed here, once."""
        variable = tirx.Var(self._name(name), value.ty)
        self._blocks[-1].append(tirx.Bind(variable, value))
        return variable

    def local(self, elements: int, dtype: str, name: str = "acc") -> Buffer:
        """A buffer that LLVM keeps in registers where it is small and indexed by constants."""
        buffer = tirx.decl_buffer((elements,), dtype, self._name(name), scope="local", layout=None)
        # on the stack, where the compiler sees it, and not from the runtime's pool
        self._blocks[-1].append(
            tirx.AllocBuffer(buffer, {"disable_lower_builtin": tirx.IntImm("bool", 1)})
        )
        return buffer

    def store(self, buffer: Buffer, index: int | Expr, value: Expr, lanes: int = 1) -> None:
        """Write ``lanes`` neighbouring elements."""
        self._blocks[-1].append(tirx.BufferStore(buffer, value, [_place(index, lanes)]))

    def value(self, expression: int | Expr) -> Expr:
        """An index that is computed here, once; a constant as it is."""
        return expression if isinstance(expression, int) else self.bind(expression, "at")

    def sweep(
        self, count: int, lanes: int, body: Callable[[int | Expr, int], None], unrolled: int = 4
    ) -> None:
        """``body(first element, lanes)`` over ``count`` elements: whole vectors, the last ones by
        halves."""
        whole = count // lanes
        if whole > unrolled:
            with self.loop(whole) as i:
                body(i * lanes, lanes)
        else:
            for number in range(whole):
                body(number * lanes, lanes)
        for at, width in pieces(count % lanes, lanes):
            body(whole * lanes + at, width)

    def tiles(
        self, extent: int, count: int, body: Callable[[Expr, int], None], name: str = "m"
    ) -> None:
        """``body(first, how many)`` for ``count`` at a time; the last ones may be fewer."""
        whole, rest = divmod(extent, count)
        if whole:
            with self.loop(whole, "t") as t:
                body(self.bind(t * count, name), count)
        if rest:
            body(constant(whole * count), rest)

    @contextmanager
    def loop(self, extent: int | Expr, name: str = "i") -> Iterator[Expr]:
        """A loop from 0; one of a single turn is none."""
        if isinstance(extent, int) and extent == 1:
            yield constant(0)
            return
        variable = tirx.Var(self._name(name), "int32")
        self._blocks.append([])
        yield variable
        body = _sequence(self._blocks.pop())
        self._blocks[-1].append(
            tirx.For(variable, constant(0), constant(extent), tirx.ForKind.SERIAL, body)
        )

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Statements under a condition."""
        self._blocks.append([])
        yield
        body = _sequence(self._blocks.pop())
        self._blocks[-1].append(tirx.IfThenElse(condition, body, None))

    def function(self, name: str) -> tirx.PrimFunc:
        """The finished function."""
        function = tirx.PrimFunc(self._parameters, _sequence(self._blocks[0]))
        return function.with_attr({"global_symbol": name, "s_tir": True, "tirx.noalias": True})
