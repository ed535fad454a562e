"""Spaces that no stages describe: every network once, counted, drawn, numbered, named."""

from __future__ import annotations

import itertools
import random
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from pydantic import ValidationError
from random_spaces import Data, spaces
from tree_space import TREE, all_paths, enumerate_networks

from edgeofa.elastic.bundles import load_bundle
from edgeofa.errors import UsageError
from edgeofa.spaces import Space, Subnet, load_space
from edgeofa.spaces.automaton import Context
from edgeofa.spaces.blocks import block_macs

_MOST = 400


@cache
def garden() -> Space:
    return Space.model_validate(tomllib.loads(TREE))


@cache
def every_subnet() -> tuple[Subnet, ...]:
    return tuple(garden().subnet_at_index(n) for n in range(garden().count()))


def _networks(space: Space) -> Counter[tuple[object, ...]]:
    """(resolution, ties, blocks) of every path of the automaton."""
    automaton = space.automaton()
    found: Counter[tuple[object, ...]] = Counter()
    for context, path in all_paths(space):
        n = automaton.contexts.index(context)
        held = [automaton.edges[e].options[o].blocks[n] for e, o in path]
        found[context.resolution, context.ties, tuple(b for x in held for b in x or ())] += 1
    return found


def test_every_network_is_one_path() -> None:
    expected = Counter(enumerate_networks(tomllib.loads(TREE)))
    assert _networks(garden()) == expected
    assert garden().count() == sum(expected.values()) == 840
    assert garden().count(16) == sum(n for (r, *_), n in expected.items() if r == 16)


@given(data=spaces)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_any_space_counts_what_enumeration_finds(data: Data) -> None:
    networks = list(itertools.islice(enumerate_networks(data), _MOST + 1))
    assume(len(networks) <= _MOST)
    if not networks:
        with pytest.raises(ValidationError, match="no network is left"):
            Space.model_validate(data)
        return
    space = Space.model_validate(data)
    assert space.count() == len(networks)
    assert _networks(space) == Counter(networks)
    rng = random.Random(0)
    for _ in range(3):
        subnet, walked = space.sample(rng), space.sample_by_choice(rng)
        for found in (subnet, walked):
            assert space.validate_subnet(found) == found
            assert space.parse(str(found)) == found
            assert space.subnet_at_index(space.index_of(found)) == found
            assert space.subnet(*space.path(found)) == found
            assert (found.resolution, found.ties, space.blocks(found)) in networks
        for other in itertools.islice(space.neighbours(subnet), 6):
            assert other != subnet
            assert subnet in space.neighbours(other)
    assert Space.model_validate(space.model_dump()) == space


def test_numbers_and_texts_are_of_one_subnet_each() -> None:
    space = garden()
    subnets = every_subnet()
    assert len(set(map(str, subnets))) == len(set(subnets)) == space.count()
    for n, subnet in enumerate(subnets):
        assert space.index_of(subnet) == n
        assert space.parse(str(subnet)) == subnet
        assert space.subnet(*space.path(subnet)) == subnet
    for n in (-1, space.count()):
        with pytest.raises(UsageError, match=f"no network {n}"):
            space.subnet_at_index(n)


def _chi_square(counts: Counter[Subnet], draws: int, kinds: int) -> float:
    expected = draws / kinds
    missing = (kinds - len(counts)) * expected
    return missing + sum((n - expected) ** 2 / expected for n in counts.values())


def test_samples_are_uniform_over_networks() -> None:
    space, rng = garden(), random.Random(11)
    kinds = space.count(16)
    draws = 12 * kinds
    # the statistic has mean ``kinds - 1`` and variance ``2 * (kinds - 1)``
    limit = kinds - 1 + 4 * (2 * (kinds - 1)) ** 0.5
    fair = Counter(space.sample(rng, 16) for _ in range(draws))
    assert _chi_square(fair, draws, kinds) < limit
    # choices one after the other are another distribution, and the test can tell
    walked = Counter(space.sample_by_choice(rng, 16) for _ in range(draws))
    assert _chi_square(walked, draws, kinds) > 3 * limit


def _choices(subnet: Subnet) -> dict[str, object]:
    """Every choice that a subnet makes, by its place; only those that are choices."""
    space = garden()
    context, path = space.path(subnet)
    edges = space.automaton().edges
    made: dict[str, object] = {"resolution": context.resolution, **dict(context.ties)}
    return made | {edges[e].name: edges[e].options[o].label for e, o in path}


def test_neighbours_differ_in_one_choice() -> None:
    made = {subnet: _choices(subnet) for subnet in every_subnet()}
    for subnet in random.Random(2).sample(every_subnet(), 60):
        mine = made[subnet]
        expected = {
            other
            for other, theirs in made.items()
            if sum(theirs[name] != mine[name] for name in mine.keys() & theirs.keys()) == 1
        }
        found = list(garden().neighbours(subnet))
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert expected


def test_corners_are_of_most_and_fewest_macs() -> None:
    space = garden()
    macs = {s: sum(map(block_macs, space.blocks(s))) for s in every_subnet()}
    assert macs[space.largest()] == max(macs.values())
    assert macs[space.smallest()] == min(macs.values())
    assert macs[space.largest(16)] == max(m for s, m in macs.items() if s.resolution == 16)
    assert set(space.all_blocks()) == {b for s in macs for b in space.blocks(s)}
    for subnet in every_subnet()[::37]:
        blocks = space.blocks(subnet)
        for before, after in itertools.pairwise(blocks):
            assert (before.size_out, before.cout) == (after.size, after.cin)


@pytest.mark.parametrize(
    ("text", "says", "nearest"),
    [
        ("garden@20/style=plain,width=8/n0/pooled/skip", "resolution 20", "garden@16/style=plain,"),
        (
            "garden@16/style=flat,width=8/n0/pooled/skip",
            "style = flat .one of plain, deep",
            "plain",
        ),
        ("garden@16/style=plain,width=9/n0/pooled/skip", "width = 9 .one of 8, 12", "width=8/n0"),
        (
            "garden@16/deep_width=8,style=deep,width=12/n0/pooled/k3e1,n1",
            "no networks with deep_width = 8, style = deep, width = 12",
            "garden@16/deep_width=8,style=deep,width=8/n0/pooled/k3e1,n1",
        ),
        (
            "garden@16/style=plain,width=8/k7,n1/pooled/skip",
            "no choice 'k7' at early.0 .one of k3, k5, n0",
            "garden@16/style=plain,width=8/k3,n1/pooled/skip",
        ),
        (
            "garden@16/style=plain,width=8/n0/pooled",
            "nothing is chosen at late.else.0 .one of skip, smooth",
            "garden@16/style=plain,width=8/n0/pooled/skip",
        ),
        (
            "garden@16/style=plain,width=8/k3,k3,k3/pooled/skip",
            "no choice 'k3' at down .one of strided, pooled",
            "garden@16/style=plain,width=8/k3,k3/pooled/skip",
        ),
        (
            "garden@16/style=plain,width=8/n0/pooled/skip,k3",
            "'k3' is one choice too many",
            "garden@16/style=plain,width=8/n0/pooled/skip",
        ),
        ("garden@16/style=plain,width=8/n0,pooled/skip", "not grouped", "/n0/pooled/skip"),
        ("garden@16/style=plain,colour=8/n0/pooled/skip", "no tie 'colour'", "garden@16/style=pla"),
        ("garden@16", "no networks with no ties", "garden@16/"),
        ("meadow@16/n0", "belongs to space 'meadow'", "garden@16"),
        ("garden@16/style=plain,width=8//n0", "not a subnet", "garden@16"),
        ("garden@" + "1" * 9000, "not a subnet", "garden@16"),
        ("garden@16/" + "k3," * 1300 + "k3", "no networks with no ties", "garden@16/"),
    ],
)
def test_what_is_outside_is_refused_with_the_nearest(text: str, says: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        garden().parse(text)
    hint = str(caught.value.hint)
    assert nearest in hint
    suggested = hint.split()[-1]
    assert str(garden().parse(suggested)) == suggested


def test_a_tree_has_no_supernet(tmp_path: Path) -> None:
    path = tmp_path / "garden.toml"
    path.write_text(TREE)
    assert load_space(str(path)).source == str(path)
    assert load_space("cifar_lite").source == "cifar_lite"
    with pytest.raises(UsageError, match="no supernet can be made") as caught:
        load_bundle(load_space(str(path)))
    assert "random-weights" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no supernet can be made of this shape"):
        _ = garden().stages
    with pytest.raises(UsageError, match="no context"):
        garden().subnet(Context(16), ())
