"""The microcontroller benchmarks' verdicts: each can fail, and unseen models are not judged."""

from __future__ import annotations

import dataclasses

from test_benchmarks import load


def test_speed_is_judged_with_its_interval_against_the_fastest_row() -> None:
    b = load("mcu_speed")
    (resnet,) = [r for r in b.REFERENCES.values() if "ResNet8" in r.name]
    assert min(r.ms for r in resnet.rows if r.target == "nucleo-l4r5zi") == 165.13
    good = (resnet, "nucleo-l4r5zi", 165.0, 1.6, 49_152)
    assert b.failures(*good) == ()
    (slow,) = b.failures(resnet, "nucleo-l4r5zi", 165.2, 1.6, 49_152)
    assert "165.13" in slow
    (large,) = b.failures(resnet, "nucleo-l4r5zi", 165.0, 1.6, 49_153)
    assert "arena" in large
    (many,) = b.failures(resnet, "corstone-300", 1e6, 0.38, 1 << 20)
    assert "CMSIS-NN" in many
    assert b.failures(None, "nucleo-l4r5zi", 1e6, 9.0, 1 << 20) == ()
    # other boards are shown, not judged
    assert b.failures(resnet, "nucleo-h7a3zi", 1e6, 9.0, 1 << 20) == ()


def test_a_network_that_did_not_run_is_no_parity() -> None:
    import sys

    sys.modules.setdefault("mcu_speed", load("mcu_speed"))
    b = load("mcu_parity")
    exact = b.Row("net", "board", 0, 10)
    assert exact.differing == 0
    for other in ({"differing": 1}, {"differing": None, "reason": "it hangs"}):
        assert dataclasses.replace(exact, **other).differing != 0


def test_size_is_judged_against_the_least_that_is_published() -> None:
    import sys

    sys.modules.setdefault("mcu_speed", load("mcu_speed"))
    b = load("mcu_size")
    (rows,) = b.PUBLISHED.values()
    assert [round(p.flash / 1024, 2) for p in rows] == [129.68, 133.35]
    assert [round(p.ram / 1024, 2) for p in rows] == [52.81, 69.72]
    assert b.failures(132_792, 54_077, rows) == ()
    flash, ram = b.failures(132_793, 54_078, rows)
    assert "132793 bytes of flash" in flash
    assert "RAM" in ram
    assert b.failures(1 << 30, 1 << 30, ()) == ()
