"""The language itself: every node and field, what is refused and where, hostile files."""

from __future__ import annotations

import copy
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tree_space import TREE

from edgeofa.errors import FileFormatError
from edgeofa.spaces import Space, load_space
from edgeofa.spaces import compile as compile_module
from edgeofa.spaces.expressions import ConditionError, parse_condition
from edgeofa.spaces.summary import summarize
from edgeofa.tomlplaces import line_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


def data() -> dict[str, Any]:
    return tomllib.loads(TREE)


def space(*body: Any, **more: Any) -> Space:
    """A space of some nodes between a stem and a head."""
    stem = {"block": "stem", "out": 8, "kernel": 3, "stride": 1, "activation": "relu"}
    head = {"block": "head", "expand": 16, "activation": "relu"}
    declared = {**data(), "ties": {}, "constraints": [], "parts": {}, "resolutions": [8]}
    return Space.model_validate({**declared, "body": [stem, *body, head], **more})


def conv(out: Any = 8, **more: Any) -> dict[str, Any]:
    return {"block": "conv", "out": out, "kernel": 1, "activation": "relu", **more}


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    text = (DOCS / "spaces.md").read_text()
    path = tmp_path / "thicket.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    example = load_space(str(path))
    found = summarize(example)
    said = f"subnets      {found.subnets} of {found.shortest} to {found.longest} blocks"
    assert said in text
    for subnet in re.findall(r"thicket@\S+", text):
        assert str(example.parse(subnet)) == subnet


# ------------------------------------------------------------------------------ what it means


def test_widths_follow_ties_and_inputs() -> None:
    tied = space(
        conv({"tie": "w", "times": 1.5, "multiple_of": 8}),
        conv({"input_times": [0.5, 2], "multiple_of": 4}),
        ties={"w": [8, 16]},
    )
    widths = {tuple(b.cout for b in tied.blocks(tied.subnet_at_index(n)))[1:3] for n in range(4)}
    # 8 * 1.5 = 12 is rounded up to 16
    assert widths == {(16, 8), (16, 32), (24, 12), (24, 48)}


def test_residual_connections_where_shapes_allow() -> None:
    found = space(conv([8, 16], residual=True, stride=[1, 2]))
    shapes = [found.blocks(found.subnet_at_index(n))[1] for n in range(4)]
    assert {(b.cout, b.stride): b.residual for b in shapes} == {
        (8, 1): True,
        (8, 2): False,
        (16, 1): False,
        (16, 2): False,
    }


def test_equal_places_share_a_node() -> None:
    # three ways to the same width are one node, so that repeats of choices grow by a sum
    choice = {"choose": [conv(16), conv(16, kernel=3), [conv(8), conv(16)]]}
    found = space(*[choice] * 30)
    assert found.count() == 3**30
    assert found.automaton().nodes < 200


def test_tied_copies_are_alike_and_others_are_not() -> None:
    body = {"repeat": conv(8, kernel=[1, 3]), "times": 3}
    free, tied = space(body), space({**body, "tied": True})
    assert (free.count(), tied.count()) == (8, 2)
    for n in range(2):
        kernels = {b.kernel for b in tied.blocks(tied.subnet_at_index(n))[1:-1]}
        assert len(kernels) == 1


def test_a_repeat_follows_a_tie() -> None:
    found = space(
        {"repeat": conv(8, kernel=[1, 3]), "times": {"tie": "n"}},
        ties={"n": [0, 2]},
    )
    assert found.count() == 1 + 4
    assert sorted({len(found.blocks(found.subnet_at_index(n))) for n in range(5)}) == [2, 4]


def test_going_on_without_a_choice_has_a_name_too() -> None:
    when = {"when": "resolution > 9", "then": [conv()]}
    for body in ([], [when], [{"repeat": [when], "times": {"tie": "n"}}]):
        ties = {"n": [1, 2]} if body and "repeat" in body[0] else {}
        found = space({"repeat": body, "times": [0, 1]}, resolutions=[8, 12], ties=ties)
        subnets = [found.subnet_at_index(n) for n in range(found.count())]
        assert any("/more" in str(subnet) for subnet in subnets)
        for subnet in subnets:
            assert found.parse(str(subnet)) == subnet


def test_the_order_of_keys_does_not_matter() -> None:
    shuffled = data()
    shuffled["body"] = [dict(reversed(node.items())) for node in shuffled["body"]]
    one, other = Space.model_validate(data()), Space.model_validate(shuffled)
    assert one.automaton() == other.automaton()


# ------------------------------------------------------------------------------ what is refused


def _changed(place: list[str | int], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(data())
    target: Any = changed
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (["body", 0, "out"], {"tie": "widht"}, r"body\.0\.out\.tie: unknown tie .*mean width\?"),
        (["body", 0, "out"], {"tie": "style"}, r"body\.0\.out\.tie: a whole number, not 'plain'"),
        (["body", 0, "out"], {"tied": "width"}, r"unknown key of a value 'tied' .*mean tie\?"),
        (["body", 0, "out"], [16, 8], r"body\.0\.out: choices must be ascending"),
        (["body", 0, "out"], [], r"body\.0\.out: 1 to 64 choices, not 0"),
        (["body", 0, "out"], 9000, r"body\.0\.out: 1 to 8192, not 9000"),
        (["body", 0, "out"], True, r"body\.0\.out: a whole number, not 'True'"),
        (["body", 0, "out"], {"input_times": [2, 1]}, r"out\.input_times: factors must be asc"),
        (["body", 0, "kernel"], {"input_times": 2}, r"unknown key of a value 'input_times'"),
        (["body", 0, "kernel"], 4, r"body\.0\.kernel: must be odd: 4"),
        (["body", 0, "activation"], "relu7", r"activation: unknown activation .*mean relu\?"),
        (["body", 0, "activation"], "none", r"unknown activation 'none' .valid: relu, relu6"),
        (["body", 0, "block"], "steam", r"body\.0\.block: unknown block .*mean stem\?"),
        (["body", 0, "blok"], 1, r"body\.0\.blok: unknown field of a stem 'blok'"),
        (["body", 0, "repeat"], [], r"body\.0: both block and repeat"),
        (["body", 1, "timse"], 1, r"body\.1\.timse: unknown key of a repeat .*mean times\?"),
        (["body", 1, "times"], [2, 1], r"body\.1\.times: choices must be ascending"),
        (["body", 1, "times"], 100, r"body\.1\.times: 0 to 64, not 100"),
        (["body", 1, "tied"], "yes", r"body\.1\.tied: true or false"),
        (["body", 1, "first"], {"strid": 2}, r"body\.1\.first: only where one block alone"),
        (["body", 1, "name"], "end", r"body\.1\.name: 'end' has a meaning of its own"),
        (["body", 1, "name"], "Early!", r"body\.1\.name: not a name"),
        (["body", 2, "name"], "early", r"body\.2: a second node of the name 'early'"),
        (["body", 2, "choose"], [], r"body\.2\.choose: 1 to 64 branches"),
        (["body", 2, "choose"], [[], []], r"body\.2\.choose\.1: the same as branch 0"),
        (["body", 2], {}, r"body\.2: a node needs one of the keys block, sequence"),
        (["body", 2], "skip", r"body\.2: a node is a table or a list, not 'skip'"),
        (["body", 1, "repeat"], {"use": "botleneck"}, r"unknown part .*mean bottleneck\?"),
        (
            ["body", 3, "when"],
            "stile == 'deep'",
            r"body\.3\.when: .*no tie or figure 'stile' .*style",
        ),
        (["body", 3, "when"], "size > 3", r"no tie or figure 'size'"),
        (["body", 3, "when"], "width", r"body\.3: 'width' is 8, neither true nor false"),
        (["body", 3, "when"], "width / 0 > 1", r"'width / 0 > 1' divides by zero"),
        (["body", 3, "when"], "__import__('os')", r"Call is not part of a condition"),
        (["body", 3, "when"], "width ** 9 ** 9 > 1", r"is not part of a condition"),
        (
            ["body", 3, "when"],
            "deep_width > 8",
            r"tie 'deep_width' does not exist here \(resolution",
        ),
        (["body", 3, "when"], "style < 3", r"'style' is 'plain', not a number"),
        (["body", 3, "when"], "(" * 250 + "1" + ")" * 40, r"is not a condition"),
        (["body", 3, "when"], "width > 1 and " * 40, r"1 to 300 characters"),
        (["body", 4], conv(), r"body: a network can end without a head"),
        (["body", 0, "out"], {"tie": "width", "input_times": 2}, r"out: either a tie or input_ti"),
        (["ties", "width"], [8, "wide"], r"ties\.width: values of one type"),
        (["ties", "width"], [], r"ties\.width: a list of 1 to 64 values"),
        (["ties", "width"], [1.5], r"ties\.width: whole numbers, true and false, or words"),
        (["ties", "spare"], [1, 2], r"ties\.spare: nothing refers to this tie"),
        (["ties", "size"], [1, 2], r"ties\.size: 'size' has a meaning of its own"),
        (
            ["ties", "style"],
            {"values": ["plain", "deep"], "wen": "1"},
            r"style\.wen: .*mean when\?",
        ),
        (
            ["ties", "width"],
            {"values": [8, 12], "when": "style == 'deep'"},
            r"ties\.width\.when: .*no tie or figure 'style'.*earlier ties only",
        ),
        (["parts", "spare"], conv(), r"parts\.spare: nothing uses this part"),
        (["parts", "deep"], {"use": "deep"}, r"parts\.deep: nodes are nested more than 24 deep"),
        (["constraints", 0], {"require": "cout > 3"}, r"constraints\.0\.require: .*'cout'"),
        (["constraints", 0], {"blocks": "cuot > 3"}, r"constraints\.0\.blocks: .*mean cout\?"),
        (["constraints", 0], {"block": "1 > 2"}, r"constraints\.0\.block: .*mean blocks\?"),
        (["constraints", 0], {"blocks": "1 < 2", "kind": "pool"}, r"constraints\.0\.kind: unknown"),
        (["constraints", 0], {}, r"constraints\.0: either require .of ties. or blocks"),
        (["constraints", 0], "width > 3", r"constraints\.0: a table, such as"),
    ],
)
def test_a_mistake_is_named_with_its_place(place: list[str | int], value: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Space.model_validate(_changed(place, value))


def test_every_network_ends_with_one_head() -> None:
    head = {"block": "head", "expand": 16, "activation": "relu"}
    assert space({"choose": [[], conv()]}).count() == 2
    with pytest.raises(ValidationError, match=r"body\.2: a block after the head"):
        space(head)
    with pytest.raises(ValidationError, match="body: a network can end without a head"):
        space(body=[{"choose": [head, conv()]}])
    with pytest.raises(ValidationError, match="body: a network can end without a head"):
        space(body=[])


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        ([{"require": "width > 12"}], r"constraints\.0\.require: no network is left: without"),
        (
            [{"blocks": "mid <= 40"}, {"blocks": "cout > 64", "kind": "stem"}],
            r"constraints\.1\.blocks: .*without 'cout > 64' there would be \d+",
        ),
        (
            [{"require": "width == 8"}, {"require": "width == 12"}],
            r"constraints\.0\.require: .*without 'width == 8' there would be \d+",
        ),
        (
            [{"require": "width < 8"}, {"blocks": "cout < 8"}],
            r"'width < 8' and 'cout < 8' together forbid all \d+",
        ),
    ],
)
def test_a_space_without_networks_says_which_condition_it_is(
    constraints: list[dict[str, str]], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        Space.model_validate({**data(), "constraints": constraints})


def test_conditions_in_the_tree_can_leave_nothing_too() -> None:
    with pytest.raises(ValidationError, match="the conditions in the tree"):
        space(conv(where="cin > 8"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('{ use = "strided", name', '{ us = "strided", name', r"line 20: body\.2\.choose\.0: unkn"),
        ("kernel = [3, 5]\nexpand = 2", "kernel = [3, 4]\nexpand = 2", r"line 37: parts\.bottlen"),
        ('kernel = 1\nactivation = "none"', "kernel = 1", r"line 53: parts\.pooled\.1\.activation"),
        (
            "times = [1, 2], tied",
            "times = [1, 2], tide",
            r"line 22: body\.3\.then\.0\.tide: .*tied\?",
        ),
        ("width = [8, 12]", "width = []", r"line 30: ties\.width: "),
        ('{ require = "style', '{ require = "stale', r"line 13: constraints\.0\.require: .*style"),
        ("classes = 4", "classes = 0", r"line 5: classes: "),
        ("schema_version = 2", "schema_version = 3", r"line 2: schema_version: "),
    ],
)
def test_the_line_of_a_mistake(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TREE
    path = tmp_path / "mine.toml"
    path.write_text(TREE.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=rf"mine\.toml: {says}") as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        [{"repeat": [{"repeat": [{"repeat": [conv()], "times": 64}], "times": 64}], "times": 64}],
        [{"repeat": {"repeat": {"repeat": [], "times": 64}, "times": 64}, "times": 64}],
        [{"choose": [conv(), conv(16)]}, {"repeat": conv({"input_times": [1, 1.5]}), "times": 64}],
        [{"repeat": conv({"input_times": 4}), "times": 64}],
        [{"repeat": [conv(list(range(1, 65)), kernel=[1, 3, 5])] * 3, "times": 2, "tied": True}],
        [conv(list(range(1, 65)), kernel=list(range(1, 32, 2)), stride=[1, 2, 3, 4])] * 40,
        [{"use": "a0"}],
    ],
)
def test_a_hostile_file_is_refused_soon(body: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # the bound itself is some seconds of work
    monkeypatch.setattr(compile_module, "MAX_CELLS", 20_000)
    parts: dict[str, Any] = {}
    if body == [{"use": "a0"}]:
        parts = {f"a{n}": [{"use": f"a{n + 1}"}] * 2 for n in range(12)} | {"a12": conv()}
    started = time.process_time()
    with pytest.raises(ValidationError, match="more than"):
        space(*body, parts=parts)
    # a guard against growth without bound, not a measurement: it takes a second at most
    assert time.process_time() - started < 60


def test_too_many_ties_are_refused() -> None:
    ties = {f"t{n}": [1, 2, 3, 4] for n in range(8)}
    with pytest.raises(ValidationError, match="ties: resolutions and ties have more than 4096"):
        space(*[{"repeat": conv(), "times": {"tie": name}} for name in ties], ties=ties)


def test_a_file_that_is_nested_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("body = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(FileFormatError, match=r"deep\.toml: not a TOML file: nested too deep"):
        load_space(str(path))
    path.write_text(TREE.replace("body = [", "body = [" + "[" * 60 + "]" * 60 + ",", 1))
    with pytest.raises(FileFormatError, match="nested more than 24 deep"):
        load_space(str(path) + "")


# ------------------------------------------------------------------------------ its parts


@given(
    text=st.text(alphabet="ab12 +-*/%<>=!()[],.'notandrif\"\\\n", max_size=40),
    values=st.fixed_dictionaries({"a": st.integers(-5, 5), "b": st.sampled_from(["x", ""])}),
)
@settings(max_examples=150, deadline=None)
def test_a_condition_has_a_value_or_is_refused(text: str, values: dict[str, Any]) -> None:
    try:
        found = parse_condition(text, values)
        assert isinstance(found.holds(values), bool)
    except ConditionError:
        pass


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a % 4 == 0 and (b == 'x' or a > 9)", True),
        ("not a in [1, 2] and 0 <= a < 9", True),
        ("a // 3 - 1 == 1 and -a < 0 and a / 2 == 4", True),
        ("b not in ['x', 'y'] or a != 8", False),
        ("b == 'x' or missing > 2", True),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    assert parse_condition(text, ("a", "b", "missing")).holds({"a": 8, "b": "x"}) is holds


def test_lines_of_places() -> None:
    text = (
        'a = 1 # [b]\n"q.r" = "x = [\\"" \nlist = [\n  1, { k = [2,\n 3], m.n = """\n]""" },\n]\n'
        "[[t]]\nu = 1\n[[t]]\nu = 2\n[t.v]\nw = 'z'\n"
    )
    tomllib.loads(text)
    places = [
        *(("a",), ("q.r",), ("list",), ("list", 0), ("list", 1, "k", 1), ("list", 1, "m", "n")),
        *(("t", 0, "u"), ("t", 1, "u"), ("t", 1, "v", "w"), ("t", 1, "v", "nothing")),
    ]
    assert [line_of(text, p) for p in places] == [1, 2, 3, 4, 5, 5, 9, 11, 13, 12]
    assert line_of(text, ("other",)) is None
