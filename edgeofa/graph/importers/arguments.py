"""Arguments of exported aten calls, by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgeofa.errors import UnsupportedOperator


class Arguments:
    """The arguments of one call, found by the names of the operator's schema.

    ``name`` is the operator without namespace, overload and in-place mark: ``aten.relu_.default``
    is ``relu``.
    """

    def __init__(self, node: fx.Node):
        self._node = node
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            raise UnsupportedOperator(f"{target} is no aten operator", where=place_of(node, ""))
        schema = target._schema
        self.name = schema.name.split("::")[-1].rstrip("_")
        names = [argument.name for argument in schema.arguments]
        self._given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}

    def get(self, name: str, default: Any = None) -> Any:
        """The argument, or ``default`` where the call leaves it out."""
        return self._given.get(name, default)

    @property
    def first(self) -> fx.Node:
        return self._checked(self._node.args[0] if self._node.args else None)

    def node(self, name: str) -> fx.Node:
        """An argument that must be another call's result."""
        return self._checked(self._given.get(name))

    def rank(self, name: str) -> int:
        """Number of dimensions of a tensor argument."""
        return len(self.node(name).meta["val"].shape)

    def _checked(self, value: object) -> fx.Node:
        if not isinstance(value, fx.Node):
            raise UnsupportedOperator(
                f"{self._node.target} of {value!r}", where=place_of(self._node, "")
            )
        return value


def place_of(node: fx.Node, root: str) -> str:
    """Where in the module a call was made: the path of its submodule, then the call's own name."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return ".".join(part for part in (str(path) or root, node.name) if part)


def pair(value: Any) -> tuple[int, int]:
    """A size as torch takes it, one number or one or two in a list, as two."""
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return (values[0], values[-1])


def square(value: Any) -> int | None:
    """A size that must be the same in both directions; None where it is not."""
    first, second = pair(value)
    return first if first == second else None


def is_scalar(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
