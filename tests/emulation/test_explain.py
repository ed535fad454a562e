"""Explanations: numbers that add up, and the machine code that they come from."""

from __future__ import annotations

import dataclasses

import pytest

from edgeofa.backends.tvm import installed
from edgeofa.devices.registry import device_for
from edgeofa.emulation.mca import BlockPrices, find_llvm
from edgeofa.errors import DeviceError, UsageError
from edgeofa.explain import Explained, explain
from edgeofa.jsonio import dumps
from edgeofa.pieces import find_piece
from edgeofa.report.explanation import explanation_text
from edgeofa.spaces import load_space
from edgeofa.targets import load_target

BLOCK = "mbconv-5x5x64-3x3x112-m128-k3-s2-r0-se0-relu-same"
#: fmla v0.4s, v30.4s, v31.4s; fmla v1.4s, ...; something that is no instruction
FMLA = "4e3fcfc04e3fcfc1"


@pytest.mark.skipif(find_llvm() is None, reason="llvm-mca is not installed")
def test_a_block_is_listed_and_its_bottleneck_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    prices = BlockPrices("cortex-a72", tmp_path / "prices.sqlite")
    assert prices.listing(FMLA + "ffffffff") == [
        "fmla v0.4s, v30.4s, v31.4s",
        "fmla v1.4s, v30.4s, v31.4s",
        ".inst 0xffffffff",
    ]
    # both sums wait for themselves
    assert prices.bottleneck(FMLA).startswith("data ")


@pytest.mark.emulated
def test_an_explanation_adds_up() -> None:
    target = load_target("rpi4")
    found = explain(
        find_piece(BLOCK, "cifar_micro"), target, device_for(target), ("litert",), "float32", hot=4
    )
    (one,) = found.backends
    assert found.cold
    assert one.latency is not None
    assert one.counted is not None
    # 1.5 GHz; 4 lanes, one multiply-accumulate a cycle
    assert one.counted.cycles == pytest.approx(one.latency.ms * 1.5e6)
    assert found.peak.macs_per_cycle == pytest.approx(4, rel=0.05)
    assert one.share_of_peak == pytest.approx(
        found.macs / one.counted.cycles / found.peak.macs_per_cycle
    )
    assert 0 < one.share_of_peak < 1
    assert sum(one.counted.parts_ms.values()) == pytest.approx(one.latency.ms)
    shares = [b.share for b in one.counted.hot]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 1
    listing = " ".join(line for b in one.counted.hot for line in b.listing)
    assert "fmla" in listing
    text = explanation_text(found)
    assert "hottest block 4" in text
    assert "share of peak" in text
    assert dumps(found)
    failed = dataclasses.replace(found, backends=(one, Explained("tvm", failure="it is ill")))
    assert "tvm failed: it is ill" in explanation_text(failed)


def test_pieces_are_found_by_what_tables_and_solve_print() -> None:
    space = load_space("cifar_micro")
    subnet = space.smallest()
    assert find_piece(BLOCK, None).block == find_piece(BLOCK, "cifar_micro").block
    whole = find_piece(str(subnet), None)
    assert whole.subnet == subnet
    assert not whole.is_block
    third = find_piece(f"{subnet}:3", None)
    assert third.block == space.blocks(subnet)[3]
    assert third.graph("int8").precision == "int8"
    for text, says in (
        (BLOCK.replace("m128", "m129"), "did you mean mbconv-5x5x64-3x3x112-m1"),
        (f"{subnet}:99", "0 to"),
        (f"{subnet}:x", "0 to"),
        ("", "no block"),
    ):
        with pytest.raises(UsageError) as refused:
            find_piece(text, "cifar_micro" if "@" not in text else None)
        assert says in str(refused.value)


def test_a_precision_that_the_target_has_not_is_refused() -> None:
    target = load_target("rpi4").model_copy(update={"precisions": ("float32",)})
    with pytest.raises(UsageError, match="int8 is no precision"):
        explain(find_piece(BLOCK, None), target, object(), ("litert",), "int8")  # type: ignore[arg-type]


def test_a_back_end_that_the_target_has_not_is_refused() -> None:
    target = load_target("rpi4")
    with pytest.raises(UsageError, match="firmware is no back end of rpi4") as refused:
        explain(find_piece(BLOCK, None), target, object(), ("firmware",), "int8")  # type: ignore[arg-type]
    assert "litert" in str(refused.value)


@pytest.mark.device
def test_on_this_machine_times_are_measured_and_an_absent_back_end_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(installed.VERSIONS, "apache-tvm", "0.0.1")
    target = load_target("host")
    found = explain(
        find_piece(BLOCK, None), target, device_for(target), ("tvm", "litert"), "float32"
    )
    absent, one = found.backends
    assert "pip install" in str(absent.failure)
    assert one.latency is not None
    assert one.latency.evidence == found.peak.evidence == "measured"
    assert one.share_of_peak == pytest.approx(
        found.macs / one.latency.ms * 1e3 / found.peak.macs_per_s
    )
    assert one.counted is None
    assert "tvm failed: " in explanation_text(found)
    with pytest.raises(DeviceError, match=r"(?s)no artifact runs.*pip install"):
        explain(find_piece(BLOCK, None), target, device_for(target), ("tvm",), "float32")
