"""Calibration: hidden constants are found again, and foreign tables are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from material import material

from edgeofa.emulation.calibrate import FbnetBlock, Sample, block_graph, calibrate, read_blocks
from edgeofa.emulation.model import CORTEX_A72, latency, region_cost
from edgeofa.emulation.trace import BlockCount, Region
from edgeofa.errors import FileFormatError

HEADER = "layer,height,cin,cout,expand,kernel,stride,groups,macs,rpi4_ms_minus_skip\n"
CLOCK_HZ = 1.5e9
CODE = "91000400"
PRICES = {CODE: 1.0}


def row(height: int, channels: int, expand: int = 1, ms: float = 0.5) -> str:
    macs = height**2 * channels * expand * (2 * channels + 9)
    return f"0,{height},{channels},{channels},{expand},3,1,1,{macs},{ms}\n"


TABLE = HEADER + "".join(row(h, c, e) for h, c in ((8, 8), (4, 16), (4, 8)) for e in (1, 3))


def samples(pipeline: float, operator_ms: float, noise: float = 0.0) -> list[Sample]:
    """Blocks whose measured time is what a model with these constants says."""
    truth = dataclasses.replace(CORTEX_A72, pipeline=pipeline, operator_ms=operator_ms)
    random = np.random.default_rng(0)
    made = []
    for height, channels in ((32, 16), (16, 40), (8, 72), (4, 136)):
        for expand in (1, 3, 6):
            executions = height**2 * channels * expand * 10
            region = Region((BlockCount(CODE, executions, executions // 200, 9, 90, 3),), 5, 0)
            cost = region_cost(region, PRICES, truth)
            ms = latency(truth, cost, CLOCK_HZ, 4).ms * (1 + noise * random.standard_normal())
            block = FbnetBlock(height, channels, channels, expand, 3, 1, 1, executions, ms)
            made.append(Sample(block, region, 4))
    return made


@pytest.mark.parametrize(("pipeline", "operator_ms"), [(1.2, 0.03), (0.9, 0.0), (1.5, 0.1)])
def test_hidden_constants_are_found(pipeline: float, operator_ms: float) -> None:
    found = calibrate(CORTEX_A72, CLOCK_HZ, samples(pipeline, operator_ms), PRICES)
    assert found.model.pipeline == pipeline
    assert found.model.operator_ms == pytest.approx(operator_ms, abs=1e-4)
    best = found.scores[-1]
    assert best.mape < 1e-6
    assert best.spearman == pytest.approx(1)
    assert found.predicted_ms == pytest.approx(found.measured_ms)


def test_the_error_is_of_unseen_layers() -> None:
    exact = calibrate(CORTEX_A72, CLOCK_HZ, samples(1.2, 0.03), PRICES)
    noisy = calibrate(CORTEX_A72, CLOCK_HZ, samples(1.2, 0.03, noise=0.1), PRICES)
    assert 0.03 < noisy.scores[-1].mape < 0.2
    assert noisy.model.error == pytest.approx(noisy.scores[-1].q95, abs=0.005)
    assert exact.model.error == 0
    assert noisy.model.lines == CORTEX_A72.lines
    by_name = {score.name: score for score in noisy.scores}
    assert len(by_name) == 5


def test_rows_are_read_once_and_only_usable_ones(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    strided = "0,8,8,8,1,3,2,1,100,0.1\n"
    grouped = "0,8,8,8,1,3,1,2,100,0.1\n"
    wider = "0,8,8,16,1,3,1,1,100,0.1\n"
    path.write_text(TABLE + row(8, 8) + strided + grouped + wider)
    blocks = read_blocks(path)
    assert len(blocks) == 6
    assert all(block_graph(block).ops[-1].kind == "add" for block in blocks)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a,b\n1,2\n",
        TABLE.replace("0.5", "fast"),
        TABLE.replace("0.5", "-0.5"),
        TABLE.replace("0.5", "nan"),
        HEADER + row(8, 8) + row(4, 16),
        TABLE + "0,8\n",
    ],
)
def test_a_foreign_table_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "blocks.csv"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"blocks\.csv"):
        read_blocks(path)


def test_a_row_whose_macs_are_not_its_shapes_is_refused() -> None:
    with pytest.raises(FileFormatError, match="MACs"):
        block_graph(FbnetBlock(8, 8, 8, 1, 3, 1, 1, 12345, 0.5))


def test_the_real_table() -> None:
    blocks = read_blocks(material("rpi4/fbnet_blocks.csv"))
    assert len(blocks) == 36
    assert len({block.layer for block in blocks}) == 6
    for block in blocks:
        block_graph(block)
