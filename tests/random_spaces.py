"""Hypothesis strategies: plain data of small declared spaces of every shape."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Data = dict[str, Any]

_WIDTH = {"tie": "width"}
_OUT = st.sampled_from([8, 16, [8, 16], _WIDTH, {**_WIDTH, "times": 1.5, "multiple_of": 8}])
_ANY_OUT = st.one_of(_OUT, st.sampled_from([{"input_times": [1, 2]}, {"input_times": 0.5}]))
_WHERE = st.sampled_from(
    ["cin == cout", "mid <= 32", "size_out > 2 or kernel == 3", "cout % 16 == 0", "style == 'deep'"]
)


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Data]:
    return st.fixed_dictionaries({}, optional=fields)


def _block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Data]:
    needed = st.fixed_dictionaries({"block": st.just(kind), **fields})
    rare = st.one_of(st.just({}), st.just({}), _maybe(where=_WHERE))
    return st.builds(lambda a, b: {**a, **b}, needed, rare)


_MBCONV = _block(
    "mbconv",
    out=_ANY_OUT,
    kernel=st.sampled_from([3, 5, [3, 5]]),
    expand=st.sampled_from([1, 2, [1, 2]]),
    activation=st.just("relu"),
)
_CONV = _block(
    "conv",
    out=_ANY_OUT,
    kernel=st.sampled_from([1, 3, [1, 3]]),
    stride=st.sampled_from([1, 2]),
    residual=st.booleans(),
    activation=st.sampled_from(["none", "relu6", ["none", "relu"]]),
)
_POOL = _block("max_pool", kernel=st.sampled_from([2, 3]), stride=st.sampled_from([1, [1, 2]]))
_SKIP = st.just({"block": "skip"})
_LEAF = st.one_of(_MBCONV, _MBCONV, _CONV, _POOL, _SKIP)

_CONDITION = st.sampled_from(
    ["style == 'deep'", "width > 8", "resolution >= 8 and style != 'deep'", "copies == 2"]
)
_TIMES = st.sampled_from([1, 2, [0, 1], [1, 2], [0, 2]])


def _composite(
    inner: st.SearchStrategy[Any], times: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    several = st.lists(inner, max_size=2)
    branches = st.lists(
        st.one_of(inner, several), min_size=1, max_size=3, unique_by=lambda x: json.dumps(x)
    )
    return st.one_of(
        several.map(lambda items: {"sequence": items}),
        st.builds(
            lambda body, n, tied: {"repeat": body, "times": n, "tied": tied},
            st.one_of(inner, several),
            times,
            st.booleans(),
        ),
        st.builds(
            lambda body, first, n: {"repeat": [body], "times": n, "first": first},
            _MBCONV,
            _maybe(stride=st.just(2), expand=st.just([2, 3])),
            times,
        ),
        branches.map(lambda b: {"choose": b}),
        st.builds(lambda c, a, b: {"when": c, "then": a, "else": b}, _CONDITION, inner, several),
        several.map(
            lambda items: {
                "when": "style == 'deep'",
                "then": [
                    {"block": "conv", "out": {"tie": "extra"}, "kernel": 1, "activation": "none"},
                    *items,
                ],
            }
        ),
    )


_PLAIN = st.recursive(_LEAF, lambda inner: _composite(inner, _TIMES), max_leaves=4)
#: only outside of tied copies can the number of copies be tied
_NODE = st.one_of(
    _PLAIN,
    _PLAIN,
    st.builds(
        lambda body, tied: {"repeat": body, "times": {"tie": "copies"}, "tied": tied},
        _PLAIN,
        st.booleans(),
    ),
)
_TIES = {
    "width": [8, 16],
    "style": ["plain", "deep"],
    "copies": [1, 2],
    "extra": {"values": [8, 24], "when": "style == 'deep'"},
}
_CONSTRAINTS = st.lists(
    st.sampled_from(
        [
            {"require": "width < 16 or style == 'plain'"},
            {"require": "copies == 1 or resolution == 8"},
            {"blocks": "cin <= 24"},
            {"blocks": "mid < 40", "kind": "mbconv"},
            {"blocks": "size > 1", "kind": "max_pool"},
        ]
    ),
    max_size=2,
    unique_by=json.dumps,
)


def _space(nodes: list[Any], constraints: list[Data], padding: str) -> Data:
    stem = {"block": "stem", "out": 8, "kernel": 3, "stride": 2, "activation": "relu"}
    head = {"block": "head", "expand": 16, "activation": "relu"}
    text = json.dumps([nodes, constraints])
    ties = {name: values for name, values in _TIES.items() if name in text}
    if "extra" in ties or "style" in text:
        ties = {name: v for name, v in _TIES.items() if name in ties or name == "style"}
    return {
        "schema_version": 2,
        "name": "drawn",
        "description": "drawn for a test",
        "classes": 4,
        "resolutions": [8, 12],
        "padding": padding,
        "batch_norm_epsilon": 1e-5,
        "kernel_transform": False,
        "preprocess": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
        "ties": ties,
        "constraints": constraints,
        "body": [stem, *nodes, head],
    }


#: max pools of even windows need TensorFlow's padding
spaces = st.builds(_space, st.lists(_NODE, min_size=1, max_size=3), _CONSTRAINTS, st.just("same"))
