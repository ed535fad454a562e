"""A small space that no stages describe, and an enumeration of any declared space.

The enumeration runs the plain data as a program that makes its choices one by one, and backtracks;
it shares nothing with the compiler but the arithmetic of rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from edgeofa.spaces.blocks import Block, make_divisible

TREE = """
schema_version = 2
name = "garden"
description = "a tree with conditionals, a tied width and tied copies, for tests"
classes = 4
resolutions = [16, 24]
padding = "same"
batch_norm_epsilon = 1e-5
kernel_transform = false
preprocess = { mean = [127.0, 127.0, 127.0], std = [128.0, 128.0, 128.0] }

constraints = [
  { require = "style == 'plain' or width < 12" },
  { blocks = "mid <= 40", kind = "mbconv" },
]

body = [
  { block = "stem", out = { tie = "width" }, kernel = 3, stride = 2, activation = "relu" },
  { name = "early", times = [0, 1, 2], repeat = { use = "bottleneck" } },
  { name = "down", choose = [{ use = "strided", name = "strided" }, { use = "pooled" }] },
  { name = "late", when = "style == 'deep'", then = [
    { times = [1, 2], tied = true, repeat = { use = "deep" } },
  ], else = [
    { choose = [{ block = "skip" }, { block = "average_pool", kernel = 3, name = "smooth" }] },
  ] },
  { block = "head", expand = 32, activation = "relu" },
]

[ties]
width = [8, 12]
style = ["plain", "deep"]
deep_width = { values = [8, 16], when = "style == 'deep'" }

[parts.bottleneck]
block = "mbconv"
out = { tie = "width" }
kernel = [3, 5]
expand = 2
activation = "relu6"

[parts.strided]
block = "conv"
out = { input_times = [1, 1.5] }
kernel = 3
stride = 2
activation = "relu"

[[parts.pooled]]
block = "max_pool"
kernel = 2
stride = 2

[[parts.pooled]]
block = "conv"
out = { tie = "width", times = 2 }
kernel = 1
activation = "none"

[parts.deep]
block = "mbconv"
out = { tie = "deep_width" }
kernel = [3, 5]
expand = [1, 2]
activation = "relu"
"""


class _Dead(Exception):
    """The choices so far lead to no network."""


def enumerate_networks(data: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """(resolution, ties, blocks) of every network of a space's plain data, once a network."""
    for resolution in data["resolutions"]:
        for ties in _ties(data, resolution):
            yield from _runs(lambda pick, r=resolution, t=ties: _network(data, r, t, pick))


def _ties(data: Mapping[str, Any], resolution: int) -> Iterator[dict[str, Any]]:
    partial: list[dict[str, Any]] = [{}]
    for name, given in data.get("ties", {}).items():
        values = given["values"] if isinstance(given, dict) else given
        when = given.get("when", "True") if isinstance(given, dict) else "True"
        partial = [
            {**p, **chosen}
            for p in partial
            for chosen in (
                [{name: v} for v in values]
                if _true(when, {**p, "resolution": resolution})
                else [{}]
            )
        ]
    for ties in partial:
        required = [c["require"] for c in data.get("constraints", ()) if "require" in c]
        if all(_true(text, {**ties, "resolution": resolution}) for text in required):
            yield ties


def _true(text: str, values: Mapping[str, Any]) -> bool:
    return bool(eval(text, {"__builtins__": {}}, dict(values)))  # noqa: S307 - our own tests' text


def _runs(program: Callable[[Callable[[int], int]], Any]) -> Iterator[Any]:
    """The results of a program for every sequence of its choices."""
    script: list[list[int]] = []
    while True:
        at = 0

        def pick(count: int) -> int:
            nonlocal at
            if at == len(script):
                script.append([0, count])
            at += 1
            return script[at - 1][0]

        with suppress(_Dead):
            yield program(pick)
        while script and script[-1][0] + 1 >= script[-1][1]:
            script.pop()
        if not script:
            return
        script[-1][0] += 1


def _network(
    data: Mapping[str, Any], resolution: int, ties: dict[str, Any], pick: Callable[[int], int]
) -> tuple[Any, ...]:
    blocks: list[Block] = []
    shape = [resolution, 3]

    def value(given: Any) -> Any:
        if isinstance(given, dict) and "tie" in given:
            found = ties[given["tie"]]
            if given.get("times", 1) == 1 and given.get("multiple_of", 1) == 1:
                return found
            return make_divisible(found * given.get("times", 1), given.get("multiple_of", 1))
        if isinstance(given, dict):
            factors = given["input_times"]
            factors = factors if isinstance(factors, list) else [factors]
            factor = factors[choose(len(factors))]
            return make_divisible(shape[1] * factor, given.get("multiple_of", 8))
        if isinstance(given, list):
            return given[choose(len(given))]
        return given

    replay: list[Iterator[int]] = []
    record: list[list[int]] = []

    def choose(count: int) -> int:
        # an outer copy that is replayed has the choices of an inner one in its trail too
        n = [next(trail) for trail in replay][-1] if replay else pick(count)
        for trail in record:
            trail.append(n)
        return n

    def run(node: Any) -> None:
        if isinstance(node, (list, tuple)):
            for item in node:
                run(item)
        elif "sequence" in node:
            run(node["sequence"])
        elif "use" in node:
            run(data["parts"][node["use"]])
        elif "choose" in node:
            run(node["choose"][choose(len(node["choose"]))])
        elif "when" in node:
            holds = _true(node["when"], {**ties, "resolution": resolution})
            run(node["then"] if holds else node.get("else", []))
        elif "repeat" in node:
            repeat(node)
        elif node["block"] != "skip":
            block(node)

    def repeat(node: Any) -> None:
        times = value(node["times"])
        for copy in range(times):
            body = node["repeat"]
            if copy == 0 and "first" in node:
                only = body[0] if isinstance(body, list) else body
                body = {**only, **node["first"]}
            if not node.get("tied"):
                run(body)
            elif copy == 0:
                record.append([])
                run(body)
                trail = record.pop()
            else:
                replay.append(iter(trail))
                run(body)
                replay.pop()

    def block(node: Any) -> None:
        kind, (size, cin) = node["block"], shape
        found = {k: value(v) for k, v in node.items() if k not in ("block", "name", "where")}
        out, expand = found.get("out", cin), found.get("expand", 0)
        kernel, stride = found.get("kernel", 1), found.get("stride", 1)
        gate, se = found.get("activation", "none"), found.get("se", False)
        if kind == "head":
            made = Block(
                "head", size, cin, data["classes"], expand, 1, 1, False, False, gate,
                data["padding"], found.get("mix", 0),
            )  # fmt: skip
        else:
            same = stride == 1 and cin == out
            residual = same and (kind == "mbconv" or found.get("residual", False))
            mid = make_divisible(cin * expand) if kind == "mbconv" else 0
            made = Block(
                kind, size, cin, out, mid, kernel, stride, residual, se, gate, data["padding"]
            )
        names = {
            **{n: getattr(made, n) for n in ("size", "size_out", "cin", "cout", "mid", "kernel")},
            **{n: getattr(made, n) for n in ("stride", "residual", "se", "activation", "kind")},
            **ties,
            "expand": expand,
            "resolution": resolution,
        }
        conditions = [node["where"]] if "where" in node else []
        conditions += [
            c["blocks"]
            for c in data.get("constraints", ())
            if "blocks" in c and c.get("kind", kind) == kind
        ]
        if not all(_true(text, names) for text in conditions):
            raise _Dead
        blocks.append(made)
        shape[:] = [made.size_out, made.cout]

    run(data["body"])
    return resolution, tuple(sorted(ties.items())), tuple(blocks)


def all_paths(space: Any) -> list[tuple[Any, Sequence[tuple[int, int]]]]:
    """Every (context, path) of a space's automaton, by plain recursion."""
    automaton = space.automaton()
    found: list[tuple[Any, Sequence[tuple[int, int]]]] = []

    def follow(n: int, node: int, path: tuple[tuple[int, int], ...]) -> None:
        if node == automaton.nodes - 1:
            found.append((automaton.contexts[n], path))
        for e, edge in enumerate(automaton.edges):
            if edge.source == node:
                for o, option in enumerate(edge.options):
                    if option.blocks[n] is not None:
                        follow(n, edge.target, (*path, (e, o)))

    for n in range(len(automaton.contexts)):
        follow(n, 0, ())
    return found


__all__ = ["TREE", "all_paths", "enumerate_networks"]
