"""Spaces are data: counting, sampling, text form, blocks, and what is refused."""

from __future__ import annotations

import importlib.resources
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_space import TINY, tiny_space

from edgeofa.accuracy.features import space_digest
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces import Layer, Space, Subnet, load_space, space_names
from edgeofa.spaces.space import make_divisible

NAMES = ["cifar_lite", "cifar_micro", "ofa_mbv3", "ofa_mbv3_w12", "ofa_proxyless"]


def test_the_shipped_spaces() -> None:
    assert space_names() == NAMES


def test_official_space_has_the_published_size() -> None:
    space = load_space("ofa_mbv3")
    # ((3*3)^2 + (3*3)^3 + (3*3)^4)^5 architectures, 25 resolutions (once-for-all, section 3)
    assert space.count() == 25 * (9**2 + 9**3 + 9**4) ** 5
    assert len(space.resolutions) == 25


def test_count_equals_enumeration_on_a_small_space() -> None:
    data = load_space("cifar_micro").model_dump()
    data["resolutions"] = [20]
    data["stages"] = [
        {**data["stages"][0], "depths": [1, 2], "kernels": [3], "first_expands": [2]},
        {**data["stages"][1], "depths": [1], "kernels": [3, 5], "expands": [2, 4]},
    ]
    space = Space.model_validate(data)
    rng = random.Random(0)
    assert len({space.sample(rng) for _ in range(2000)}) == space.count() == (1 + 3) * 4


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_samples_are_valid_and_survive_their_text_form(name: str, seed: int) -> None:
    space = load_space(name)
    subnet = space.sample(random.Random(seed))
    assert space.parse(str(subnet)) == space.validate_subnet(subnet) == subnet


@pytest.mark.parametrize("name", NAMES)
def test_blocks_chain_and_are_covered_by_all_blocks(name: str) -> None:
    space = load_space(name)
    rng = random.Random(3)
    for _ in range(20):
        subnet = space.sample(rng, resolution=space.resolutions[0])
        blocks = space.blocks(subnet)
        assert blocks[0].kind == "stem"
        assert blocks[-1].kind == "head"
        for before, after in itertools.pairwise(blocks):
            assert (before.size_out, before.cout) == (after.size, after.cin)
        assert set(blocks) <= set(space.all_blocks((subnet.resolution,)))


def test_block_keys_are_unique() -> None:
    for name in NAMES:
        blocks = load_space(name).all_blocks()
        assert len({b.key for b in blocks}) == len(blocks)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cifar_lite@128", "not a subnet"),
        ("cifar_lite@128/3x1/3x3/3x3/3x3/3x3/3x3/3x3", "depth 1 in stage 5"),
        ("cifar_lite@100/3x1/3x3/3x3/3x3/3x3/3x3,3x3/3x3", "resolution 100"),
        ("cifar_lite@128/3x1/5x3/3x3/3x3/3x3/3x3,3x3/3x3", "kernel 5 in stage 1"),
        ("cifar_lite@128/3x1/3x5/3x3/3x3/3x3/3x3,3x3/3x3", "expansion 5 in stage 1"),
        ("cifar_micro@32/3x2/3x2/3x2/3x2", "belongs to space 'cifar_micro'"),
        ("cifar_lite@128/3x1x1/", "not a subnet"),
        ("cifar_lite@" + "9" * 9000, "not a subnet"),
    ],
)
def test_what_is_outside_the_space_is_named(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_space("cifar_lite").parse(text)


def test_subnet_of_two_layers_reads_as_expected() -> None:
    assert str(Subnet("s", 32, ((Layer(3, 1),), (Layer(5, 6), Layer(3, 4))))) == "s@32/3x1/5x6,3x4"


@pytest.mark.parametrize(
    ("value", "expected"), [(16 * 3, 48), (17, 16), (20, 24), (1, 8), (11, 16)]
)
def test_make_divisible(value: float, expected: int) -> None:
    assert make_divisible(value) == expected


def _shipped(name: str) -> str:
    return (importlib.resources.files("edgeofa.spaces") / f"{name}.toml").read_text()


def test_user_space_file(tmp_path: Path) -> None:
    text = _shipped("cifar_micro")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('name = "cifar_micro"', 'name = "mine"'))
    assert load_space(str(path)).name == "mine"
    broken = tmp_path / "broken.toml"
    broken.write_text(text.replace("kernel = [3, 5]", "kernel = [5, 3]"))
    with pytest.raises(FileFormatError, match=r"broken\.toml"):
        load_space(str(broken))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("expand = [2, 3, 4] ", "expand", "not a TOML file"),
        ("batch_norm_epsilon = 1e-5", "batch_norm_epsilon = -1", "line 9: batch_norm_epsilon: "),
        ("first = { stride = 2 }", "first = { strid = 2 }", r"body\.2\.first\.strid: .*stride\?"),
        ("out = 12", "", r"line 13: body\.0\.out: missing: a stem needs it"),
        ("out = 12", "outt = 12", r"line 15: body\.0\.outt: unknown field .*mean out\?"),
        ("kernel = [3, 5, 7]", "kernel = [3, 4]", r"line 28: body\.2\.repeat\.kernel: must be odd"),
        ("repeat = {", "repaet = {", r"line 20: body\.1: unknown node 'repaet' .*mean repeat\?"),
        ('block = "head"', 'block = "haed"', r"line 40: body\.5\.block: .*did you mean head\?"),
        ("classes = 10", 'classes = "ten"', "line 6: classes: "),
        ("[20, 24", "[24, 20", "line 7: resolutions: 1 to 4096 px, ascending"),
    ],
)
def test_a_mistake_in_a_space_file_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = _shipped("cifar_micro")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1) if old in text else f"{text}{new}")
    with pytest.raises(FileFormatError, match=rf"mine\.toml: .*{says}") as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "{ out = 16, stride = 2",
            "{ out = 16, strid = 2",
            r"line 14: stages\.1\.strid: .*did you mean stride\?",
        ),
        ("out = 16, ", "", r"line 14: stages\.1\.out: Field required"),
        ("kernels = [3, 5]", "kernels = [3, 4]", r"line 13: stages\.0: kernels must be odd"),
        ("head = {", "haed = {", r"line 16: haed: .*did you mean head\?"),
    ],
)
def test_a_mistake_in_a_file_of_version_1_is_named_in_its_own_words(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "old.toml"
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=rf"old\.toml: .*{says}"):
        load_space(str(path))


def test_version_1_means_what_it_meant(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    again = Space.model_validate(space.model_dump())
    assert again == space
    assert again.automaton() == space.automaton()
    assert space.count() == 2 * (4 + 4 * 4) * (2 + 2 * 2)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("cifar_lite", "7426b1b2a438c037"),
        ("cifar_micro", "7c6bedf237610419"),
        ("ofa_mbv3", "947cd78caa49cf58"),
        ("ofa_mbv3_w12", "25a9de3296101045"),
    ],
)
def test_digests_that_shipped_files_carry(name: str, digest: str) -> None:
    # supernets/*/accuracy.json and predictors that users imported hold them
    assert space_digest(load_space(name)) == digest


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_blocks_are_those_of_the_staged_view(name: str) -> None:
    space = load_space(name)
    automaton = space.automaton()
    for edge in automaton.edges:
        for option in edge.options:
            for context, blocks in zip(automaton.contexts, option.blocks, strict=True):
                if edge.place is not None and option.layer is not None:
                    r = context.resolution
                    assert blocks == (space.layer_block(r, *edge.place, option.layer),)
    assert {e.place for e in automaton.edges} - {None} == set(space.slots)
    subnet = space.sample(random.Random(1))
    context, path = space.path(subnet)
    assert space.subnet(context, path) == subnet
    n = automaton.contexts.index(context)
    held = [automaton.edges[e].options[o].blocks[n] for e, o in path]
    assert tuple(b for blocks in held for b in blocks or ()) == space.blocks(subnet)


def test_fewer_resolutions_keep_the_numbers_of_edges() -> None:
    space = load_space("cifar_micro")
    some = space.automaton((24, 40))
    assert [c.resolution for c in some.contexts] == [24, 40]
    for whole, part in zip(space.automaton().edges, some.edges, strict=True):
        assert [o.blocks[1] for o in whole.options] == [o.blocks[0] for o in part.options]
    with pytest.raises(UsageError, match=r"\[23\] are not in space cifar_micro"):
        space.automaton((23,))


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        (
            "cifar_lite@100/3x1/3x3/3x3/3x3/3x3/3x3/3x3",
            "cifar_lite@96/3x1/3x3/3x3/3x3/3x3/3x3,3x3/3x3",
        ),
        ("cifar_micro@32/9x2/3x2/3x2", "cifar_micro@32/5x2/3x2/3x2/3x2"),
    ],
)
def test_the_nearest_subnet_is_told(text: str, nearest: str) -> None:
    space = load_space(text.split("@")[0])
    with pytest.raises(UsageError) as caught:
        space.parse(text)
    assert str(caught.value.hint).endswith(f"the nearest is {nearest}")
    assert str(space.parse(nearest)) == nearest


def test_a_copy_is_checked_and_follows_its_fields() -> None:
    space = load_space("cifar_micro")
    other = space.model_copy(update={"padding": "symmetric"})
    assert other.blocks(other.smallest())[0].padding == "symmetric"
    with pytest.raises(ValueError, match="classes"):
        space.model_copy(update={"classes": 0})


def test_a_space_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('description = "größe"'.encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"latin\.toml: not a TOML file"):
        load_space(str(path))


def test_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="cifar_lite, cifar_micro, ofa_mbv3"):
        load_space("cifar_big")
