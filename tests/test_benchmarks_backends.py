"""The verdict of the benchmark of back ends: each requirement can be missed."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
from table_samples import make_table
from test_benchmarks import load

from edgeofa.spaces import load_space
from edgeofa.tables.table import Table
from edgeofa.targets import load_target


@pytest.fixture
def b() -> ModuleType:
    return load("backends")


def _row(b: ModuleType, precision: str = "int8", ms: float = 1.0, **changes: object) -> object:
    row = b.Row(
        target="host",
        evidence="measured",
        space="cifar_lite",
        size="small",
        precision=precision,
        subnet="s",
        macs=10**6,
        ms=dict.fromkeys(b.VARIANTS, ms),
        ratios=dict.fromkeys(b.VARIANTS[:-1], 0.9),
        untuned_by_onnxruntime=1.4,
        file_by_weights=2.0,
        output_error=0.0,
        build_s=dict.fromkeys(b.VARIANTS, 1.0),
        kernels=4,
        tuned_kernels=1,
        trials=4,
    )
    return dataclasses.replace(row, **changes)


def test_each_requirement_can_be_missed(b: ModuleType) -> None:
    good = [_row(b, "int8", 1.0), _row(b, "float32", 2.0)]
    blocks = b.Blocks("rpi4", "cifar_lite", "int8", 3, (), 0.9, 0.0, ())
    assert b.failures(good, [blocks], []) == []
    for change, says in (
        ({"ratios": dict.fromkeys(b.VARIANTS[:-1], 1.2)}, "tuned TVM takes 1.04 of onnxruntime"),
        ({"untuned_by_onnxruntime": 1.9}, "untuned TVM takes 1.63 of onnxruntime"),
        ({"ms": dict.fromkeys(b.VARIANTS, 2.5)}, "int8 takes 1.25 of float32's time"),
        ({"output_error": 1e-9}, "cifar_lite small int8: outputs are off"),
        ({"output_error": float("nan")}, "outputs are off"),
        ({"file_by_weights": 3.5}, "3.5 times the weights"),
        ({"build_s": dict.fromkeys(b.VARIANTS, 21.0)}, "compiled in 21 s"),
    ):
        (failure,) = b.failures([dataclasses.replace(good[0], **change), good[1]], [blocks], [])
        assert says in failure
    for change, says in (
        ({"geomean": 1.01}, "rpi4 cifar_lite int8: 1.010 of LiteRT's time"),
        ({"failed": ("stem",)}, "TVM fails 1 blocks, such as stem"),
        ({"geomean": None, "share_slower": None}, "no block is in both tables"),
    ):
        (failure,) = b.failures(good, [dataclasses.replace(blocks, **change)], [])
        assert says in failure
    assert b.failures(good, [blocks], ["rpi4 x"]) == ["no table: rpi4 x"]
    within = [_row(b, "float32", output_error=9e-5, target="rpi4")]
    assert b.failures(within, [], []) == []


def test_int8_is_compared_with_float32_of_the_same_network_only(b: ModuleType) -> None:
    rows = [
        _row(b, "int8", 1.0),
        _row(b, "float32", 4.0),
        _row(b, "int8", 9.0, size="large"),
        _row(b, "int8", 1.0, space="cifar_micro"),
        _row(b, "float32", 1.0, space="cifar_micro"),
    ]
    assert b.int8_by_float32(rows) == pytest.approx(0.5)
    assert b.int8_by_float32(rows[2:3]) is None
    assert "takes 0.500 of its float32's time" in " ".join(b.summary(rows))


def test_blocks_are_compared_where_both_run_and_failed_ones_are_named(
    b: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = make_table(6), make_table(6, scale=0.5)
    keys = sorted(theirs.rows)
    slow = dataclasses.replace(ours.rows[keys[0]], latency_ms=4 * ours.rows[keys[0]].latency_ms)
    rows = ours.rows | {keys[0]: slow, keys[1]: dataclasses.replace(slow, status="failed")}
    del rows[keys[2]]
    broken = dataclasses.replace(theirs.rows[keys[3]], status="failed")
    theirs = Table(theirs.header, theirs.rows | {keys[3]: broken})
    tables = {"tvm": Table(ours.header, rows), "litert": theirs}
    monkeypatch.setattr(b, "find_table", lambda _, __, backend, *___, **____: tables[backend])
    question = load_target("rpi4"), load_space("cifar_lite"), "int8"
    found = b.block_ratios(*question)
    assert found.failed == (keys[1], keys[2])
    assert found.blocks == 3
    assert found.geomean == pytest.approx((2 * 0.5 * 0.5) ** (1 / 3))
    assert found.slower == ((keys[0], pytest.approx(2.0)),)
    assert found.share_slower == pytest.approx(1 / 3)
    tables["tvm"] = Table(ours.header, {})
    assert b.block_ratios(*question).geomean is None


def test_a_part_does_not_call_itself_the_whole(b: ModuleType) -> None:
    whole = {"target": ["host", "rpi4"], "space": [*b.SPACES], "precision": [*b.PRECISIONS]}
    assert not b.is_part(argparse.Namespace(**whole))
    for name in whole:
        assert b.is_part(argparse.Namespace(**(whole | {name: whole[name][:1]})))


def test_outputs_are_compared_on_the_device(b: ModuleType, tmp_path: Path) -> None:
    from edgeofa.backends.registry import get_backend
    from edgeofa.devices.registry import device_for
    from edgeofa.pieces import whole_subnet

    space, target = load_space("cifar_micro"), load_target("host")
    graph = whole_subnet(space, space.smallest()).graph("float32", 0)
    other = whole_subnet(space, space.smallest()).graph("float32", 1)
    compiler = get_backend("litert").for_target(target)
    artifact = compiler.compile(graph, tmp_path / "x.tflite")
    assert b.output_error(device_for(target), artifact, graph, 0) < 1e-4
    assert b.output_error(device_for(target), artifact, other, 0) > 1e-2
