"""Thumb-2 code: instruction borders, class costs, and llvm-mca's prices for it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgeofa.emulation.mca import BlockPrices, find_llvm
from edgeofa.emulation.thumb import class_cycles, split

#: assembly and cycles by the rule in the module's text
COSTS = [
    ("ldr r0, [r1, #4]", 2),
    ("ldrb r0, [r1, r2]", 2),
    ("ldrsh r0, [r1, r2]", 2),
    ("ldr.w r0, [r1, #400]", 2),
    ("ldr r0, [sp, #8]", 2),
    ("ldr r0, [r1, #4]\n ldr r2, [r1, #8]", 3),
    ("str r0, [r1, #4]\n ldr r2, [r1, #8]", 2),
    ("ldr r0, [r1, #4]\n adds r0, r0, #1\n ldr r2, [r1, #8]", 5),
    ("str r0, [r1, #4]", 1),
    ("strb r0, [r1, r2]", 1),
    ("strh.w r0, [r1, #400]", 1),
    ("ldmia r0!, {r1, r2, r3}", 4),
    ("ldmia.w r0!, {r1, r2, r8, r9}", 5),
    ("push {r4, r5, r6, lr}", 5),
    ("pop {r4, pc}", 3),
    ("push.w {r4-r11, lr}", 10),
    ("ldrd r0, r1, [r2, #8]", 3),
    ("strd r0, r1, [r2, #8]", 3),
    ("mla r0, r1, r2, r3", 2),
    ("mls r0, r1, r2, r3", 2),
    ("mul r0, r1, r2", 1),
    ("muls r0, r1, r0", 1),
    ("smlad r0, r1, r2, r3", 1),
    ("smlabb r0, r1, r2, r3", 1),
    ("smull r0, r1, r2, r3", 1),
    ("smmlar r0, r1, r2, r3", 1),
    ("sdiv r0, r1, r2", 7),
    ("udiv r0, r1, r2", 7),
    ("vldr s0, [r0]", 2),
    ("vpush {s16-s19}", 5),
    ("vmov s0, r0", 1),
    ("ldr.w pc, [r0, #4]", 5),
    ("pld [r0]", 1),
    ("adds r0, r1, r2", 1),
    ("ssat r0, #8, r1", 1),
    ("bl 0x100", 1),
]


def _assemble(texts: list[str]) -> list[str]:
    """The code of each text, as the plugin writes it."""
    llvm = find_llvm()
    if llvm is None:
        pytest.skip("no llvm-mc")
    command = [str(llvm.mc), "-triple=thumbv8.1m.main", "-mattr=+dsp,+fp-armv8d16sp"]
    codes = []
    for text in texts:
        done = subprocess.run(
            [*command, "-show-encoding"], input=f" {text}\n", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        halves = []
        for encoding in re.findall(r"encoding: \[([^\]]*)\]", done.stdout):
            # a branch's distance is filled in later
            octets = [int(x, 16) if x.startswith("0x") else 0xF8 for x in encoding.split(",")]
            halves += [f"{b:02x}{a:02x}" for a, b in zip(octets[::2], octets[1::2], strict=True)]
        codes.append("".join(halves))
    return codes


def test_costs_are_those_of_the_classes() -> None:
    codes = _assemble([text for text, _ in COSTS])
    found = [class_cycles(code) for code in codes]
    assert found == [float(cycles) for _, cycles in COSTS]


def test_instructions_are_told_apart() -> None:
    # movs; push.w; ldr; nop.w
    assert split("2000e92d4ff06848f3af8000") == ["2000", "e92d4ff0", "6848", "f3af8000"]


def test_llvm_prices_blocks_with_it_and_mve(tmp_path: Path) -> None:
    if find_llvm() is None:
        pytest.skip("no llvm-mca")
    from edgeofa.emulation.thumb import THUMB

    prices = BlockPrices("cortex-m7", tmp_path / "blocks.sqlite", isa=THUMB)
    # smlad; cmp, it lt, movlt; ldr, ldr, adds
    codes = ["fb226303", "2880bfb82080", "680a684b3201"]
    found = prices.cycles(codes)
    assert set(found) == set(codes)
    assert all(0.3 <= found[code] <= 8 for code in codes)
    assert prices.cycles(codes) == found
