"""The trace of a Cortex-M board and the cycles that it stands for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeofa.emulation.cortex_m import cortex_model, cycle_cost, model_names, relative_error
from edgeofa.emulation.cortex_m_trace import parse_runs
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.microcontroller import FlashTiming

TIMING = FlashTiming(line_bytes=32, data_lines=8, code_lines=32, miss_cycles=24, source="test")
#: ldr, adds: 3 cycles; b: 1 cycle
TRACE = """edgeofa-cortex-m 1
B 1 68083001
C 1 100 10 5 0
L 0 1
B 2 e7fe
C 1 1 1 0 2
C 2 7 3 0 0
R 0 2 1
C 2 4 4 0 0
R 1 1 0
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace"
    path.write_text(TRACE)
    return path


def test_runs_and_layers(trace: Path) -> None:
    first, second = parse_runs(trace)
    assert len(first.layers) == 1
    assert first.layers[0].instructions == 200
    assert first.whole.instructions == 200 + 2 + 7
    assert second.layers == ()
    assert second.outside.blocks[0].taken == 4


def test_an_unfinished_run_is_left_out(trace: Path) -> None:
    trace.write_text(TRACE + "C 1 5 0 0 0\nC 2 7")
    assert len(parse_runs(trace)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (TRACE.replace("edgeofa-cortex-m 1", "something 1"), "line 1: not a trace"),
        (TRACE.replace("C 2 7 3 0 0", "C 9 7 3 0 0"), "line 7: counts of an unknown block"),
        (TRACE.replace("B 2 e7fe", "B 1 e7fe"), "line 5: a block twice"),
        (TRACE.replace("R 0 2 1", "R 0 3 1"), "line 8: it does not have the blocks"),
        (TRACE.replace("R 0 2 1", "R 0 2 2"), "line 8: the run does not have the layers"),
        (TRACE.replace("R 1 1 0", "R 5 1 0"), "line 10: it does not have"),
        (TRACE.replace("L 0 1", "L 1 1"), "line 4: it does not have"),
        (TRACE.replace("B 2 e7fe", "B 2 e7f"), "line 5: not a line"),
        (TRACE.replace("B 2 e7fe", "B 2 " + "0" * 9000), "not a line"),
    ],
)
def test_what_the_plugin_cannot_have_written_is_refused(
    trace: Path, wrong: str, message: str
) -> None:
    trace.write_text(wrong)
    with pytest.raises(FileFormatError, match=message):
        parse_runs(trace)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_empty(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "trace"
    path.write_bytes(noise)
    with suppress(FileFormatError):
        assert parse_runs(path) == ()


def test_cycles_of_the_class_engine(trace: Path) -> None:
    model = cortex_model("cortex-m4")
    cost = cycle_cost(parse_runs(trace)[0].whole, model, TIMING)
    assert cost.core == 100 * 3 + 3 + 7
    assert cost.branches == 2 * (10 + 1 + 3)
    assert cost.flash == 24 * 5
    assert cost.cycles == 310 + 28 + 120
    assert relative_error(cost, model, TIMING) == pytest.approx(0.05 + 2 * 24 / 2 / 458)
    without = cycle_cost(parse_runs(trace)[0].whole, model, None)
    assert (without.flash, relative_error(without, model, None)) == (0, 0.05)


def test_the_other_engines(trace: Path) -> None:
    executed = parse_runs(trace)[0].whole
    m7 = cycle_cost(executed, cortex_model("cortex-m7"), None, lambda _: {"68083001": 1.5})
    # a block without a price costs its instructions
    assert m7.cycles == 101 * 1.5 + 7
    assert cycle_cost(executed, cortex_model("cortex-m55"), None).cycles == 209


def test_models_say_how_far_they_may_be_trusted() -> None:
    assert {n: cortex_model(n).validated for n in model_names()} == {
        "cortex-m4": True,
        "cortex-m33": True,
        "cortex-m7": False,
        "cortex-m55": False,
    }
    assert cortex_model("cortex-m55").evidence == "estimated"
    assert len({cortex_model(n).identity for n in model_names()}) == 4
    with pytest.raises(UsageError, match="unknown cycle model"):
        cortex_model("cortex-a9")
