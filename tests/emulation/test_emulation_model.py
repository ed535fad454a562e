"""The latency and energy models' arithmetic, by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeofa.emulation.energy import energy_mj
from edgeofa.emulation.model import (
    CORTEX_A72,
    CoreModel,
    LineCosts,
    core_model,
    latency,
    region_cost,
)
from edgeofa.emulation.trace import BlockCount, Region
from edgeofa.errors import DeviceError, UsageError
from edgeofa.targets import load_target

MODEL = CoreModel(
    name="test",
    lines=LineCosts(l2_stream=5, l2_other=12, dram_stream=24, dram_other=150, write_back=30),
    pipeline=2.0,
    operator_ms=0.5,
    error=0.1,
    error_threads=0.2,
    source="this test",
)
BUSY, WAITING = "91000400", "91000401"
REGION = Region(
    (BlockCount(BUSY, 1000, 10, 3, 4, 1), BlockCount(WAITING, 10, 100, 0, 100, 0)), 2, 0
)
PRICES = {BUSY: 1.5, WAITING: 1.0}


def test_streams_hide_behind_computing() -> None:
    cost = region_cost(REGION, PRICES, MODEL)
    assert cost.core == 2.0 * (1.5 * 1000 + 1.0 * 10)
    assert cost.instructions == 1010
    # the busy block's streams (6 * 5 + 4 * 24 cycles) are hidden, its two other L2 hits and its
    # random access are not; the waiting block shows what exceeds its 20 cycles of computing
    assert cost.l2_shown == 2 * 12
    assert cost.dram_shown == pytest.approx(150 + (100 * 24 - 20) + 2 * 30)
    assert cost.l2 == 6 * 5 + 2 * 12
    assert cost.dram == 4 * 24 + 150 + 100 * 24 + 2 * 30


def test_latency_of_one_and_four_threads() -> None:
    cost = region_cost(REGION, PRICES, MODEL)
    one = latency(MODEL, cost, 1e3, 3)
    assert one.ms == pytest.approx(cost.core + cost.l2_shown + cost.dram_shown + 1.5)
    assert sum(one.parts_ms.values()) == one.ms
    assert one.error == 0.1
    four = latency(MODEL, cost, 1e3, 3, threads=4)
    assert four.ms == pytest.approx((cost.core + cost.l2) / 4 + cost.dram + 1.5)
    assert four.error == 0.2


def test_code_without_a_price() -> None:
    rare = Region((*REGION.blocks, BlockCount("ffffffff", 20, 0, 0, 0, 0)), 0, 0)
    assert region_cost(rare, PRICES, MODEL).core == 2.0 * (1500 + 10 + 20)
    often = Region((*REGION.blocks, BlockCount("ffffffff", 30, 0, 0, 0, 0)), 0, 0)
    with pytest.raises(DeviceError, match="no price for 3%"):
        region_cost(often, PRICES, MODEL)


def test_other_threads_are_refused() -> None:
    with pytest.raises(DeviceError, match="more than one thread"):
        region_cost(dataclasses.replace(REGION, foreign=1), PRICES, MODEL)


@given(
    factor=st.integers(min_value=2, max_value=9),
    stream=st.integers(min_value=0, max_value=10_000),
    executions=st.integers(min_value=1, max_value=10_000),
)
def test_more_of_the_same_takes_as_much_longer(factor: int, stream: int, executions: int) -> None:
    once = Region((BlockCount(BUSY, executions, stream, 1, stream // 2, 0),), 1, 0)
    more = Region(
        (BlockCount(BUSY, *(factor * x for x in (executions, stream, 1, stream // 2, 0))),),
        factor,
        0,
    )
    # streams of odd length split by another line between L2 and DRAM
    slack = MODEL.lines.dram_stream * factor
    a = latency(MODEL, region_cost(once, PRICES, MODEL), 1e3, 0).ms
    b = latency(MODEL, region_cost(more, PRICES, MODEL), 1e3, 0).ms
    assert b == pytest.approx(factor * a, abs=slack)


def test_models_by_name() -> None:
    assert core_model("cortex-a72") is CORTEX_A72
    with pytest.raises(UsageError, match="cortex-a99"):
        core_model("cortex-a99")


def test_the_digest_covers_every_constant() -> None:
    assert MODEL.digest != dataclasses.replace(MODEL, pipeline=2.1).digest
    lines = dataclasses.replace(MODEL.lines, write_back=31)
    assert MODEL.digest != dataclasses.replace(MODEL, lines=lines).digest
    assert MODEL.digest == dataclasses.replace(MODEL, source="elsewhere").digest


def test_energy_is_power_times_time() -> None:
    target = load_target("rpi4")
    assert target.power is not None
    idle, core = target.power.idle_w, target.power.core_w
    gross = energy_mj(target, 20.0, 4)
    assert gross is not None
    assert gross.mj == pytest.approx((idle.value + 4 * core.value) * 20)
    assert gross.low_mj < gross.mj < gross.high_mj
    assert energy_mj(load_target("host"), 20.0) is None
