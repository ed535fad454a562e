"""Graphs in files: what is written comes back, and nothing else does."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from graph_cases import graphs, structure
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_graphs import float_graph, images, int8_graph

from edgeofa.errors import FileFormatError
from edgeofa.graph.ir import Graph
from edgeofa.graph.reference import run
from edgeofa.graph.store import load_graph, save_graph


@pytest.mark.parametrize("make", [float_graph, int8_graph])
def test_a_network_comes_back_and_computes_the_same(make: object, tmp_path: Path) -> None:
    graph: Graph = make("network")  # type: ignore[operator]
    digest = save_graph(graph, tmp_path / "g")
    assert digest == hashlib.sha256((tmp_path / "g").read_bytes()).hexdigest()
    found = load_graph(tmp_path / "g")
    assert structure(found) == structure(graph)
    x = images(graph.input_tensor.shape, 1)[:1]
    if graph.precision == "int8":
        x = np.clip(np.rint(x * 40), -128, 127).astype(np.int8)
    assert np.array_equal(run(found, x), run(graph, x))
    assert save_graph(found, tmp_path / "again") == digest


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_any_graph_comes_back(tmp_path_factory: pytest.TempPathFactory, graph: Graph) -> None:
    path = tmp_path_factory.mktemp("graph") / "g"
    save_graph(graph, path)
    assert structure(load_graph(path)) == structure(graph)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 255))
def test_damage_gives_a_file_error_or_a_valid_graph(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    save_graph(int8_graph("network"), path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= flip
    path.write_bytes(content)
    with contextlib.suppress(FileFormatError):  # anything else fails the test
        load_graph(path)


def test_cut_foreign_and_hostile_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g"
    save_graph(float_graph("network"), path)
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            load_graph(path)
    path.write_bytes((1 << 60).to_bytes(8, "little") + whole[8:])
    with pytest.raises(FileFormatError, match="cut off"):
        load_graph(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_graph(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"output": 99}, "no tensor 99"),
        ({"input": -5}, "no tensor"),
        ({"schema_version": 2}, "schema_version"),
        ({"precision": "int8"}, "not int8"),
        ({"tensors": []}, "tensors"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "g"
    save_graph(float_graph("network"), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["edgeofa.graph"])
    header["__metadata__"]["edgeofa.graph"] = json.dumps(described | change)
    new = json.dumps(header).encode()
    new += b" " * (-len(new) % 8)
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])
    with pytest.raises(FileFormatError, match=reason):
        load_graph(path)
