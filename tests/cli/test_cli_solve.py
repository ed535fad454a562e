"""``edgeofa solve`` and ``edgeofa frontier`` from the command line, on a table written for it."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from solver_world import noisy_table
from typer.testing import CliRunner

from edgeofa.cli.main import command
from edgeofa.errors import MissingMaterial, NoSubnetFits, UsageError
from edgeofa.spaces import load_space
from edgeofa.tables.store import write_table
from edgeofa.targets import load_target

COMMON = ["--target", "rpi4", "--space", "cifar_micro", "--random-weights"]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up int8 table of cifar_micro in the user's own folder."""
    target = load_target("rpi4")
    table = noisy_table("cifar_micro", 0)
    header = dataclasses.replace(
        table.header, target=target.name, target_digest=target.digest, date="2026-01-01"
    )
    folder = tmp_path / "tables"
    write_table(dataclasses.replace(table, header=header), folder)
    monkeypatch.setenv("EDGEOFA_TABLES", str(folder))
    return folder


def run(*arguments: str) -> str:
    # typer's command is a click command; its errors must reach main() as they are
    result = CliRunner().invoke(_app(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _app():  # type: ignore[no-untyped-def]
    from edgeofa.cli.main import app

    command()
    return app


def test_solve_prints_one_subnet_within_the_budgets(tables: Path) -> None:
    budgets = ["--precision", "int8", "--latency", "2ms", "--flash", "100KB", "--sram", "64KB"]
    answer = json.loads(run("solve", *COMMON, *budgets, "--k", "9", "--json"))
    best = answer["selection"]["best"]
    assert load_space("cifar_micro").parse(best["subnet"])
    assert best["planned_ms"] <= 2
    assert best["weight_bytes"] <= 100 * 1024
    assert best["peak_bytes"] <= 64 * 1024
    assert best["accuracy"] is None
    assert best["latency"]["evidence"] == answer["evidence"] == "estimated"
    assert answer["selection"]["proven"]
    assert 0 <= answer["selection"]["bound"] - best["score"] < 1e-9
    assert len(answer["selection"]["runners_up"]) == 8
    text = run("solve", *COMMON, *budgets)
    assert best["subnet"] in text
    assert "no accuracy claimed" in text
    assert "estimated" in text


def test_solve_refuses_what_it_cannot_do(tables: Path) -> None:
    with pytest.raises(NoSubnetFits, match="the fastest, cifar_micro@20/"):
        run("solve", *COMMON, "--precision", "int8", "--latency", "1us")
    with pytest.raises(UsageError, match="no budget"):
        run("solve", *COMMON)
    with pytest.raises(UsageError, match="no back end 'nimble'"):
        run("solve", *COMMON, "--latency", "2ms", "--backend", "nimble")
    with pytest.raises(UsageError, match="2KB is not a time, but a size in memory"):
        run("solve", *COMMON, "--latency", "2KB")
    with pytest.raises(MissingMaterial, match="no latency table"):
        run("solve", *COMMON, "--latency", "2ms", "--threads", "7")


def test_frontier_writes_pictures_and_csv(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("frontier", *COMMON, "--precision", "int8", "--out", str(out), "--json")
    record = json.loads(run(*arguments))
    points = record["points"]
    assert len(points) > 20
    for cheaper, dearer in pairwise(points):
        assert cheaper["latency_ms"] < dearer["latency_ms"]
        assert cheaper["score"] < dearer["score"]
    with (out / "frontier-rpi4-cifar_micro-litert-int8.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["subnet"] for r in rows] == [p["subnet"] for p in points]
    assert float(rows[0]["latency_ms"]) == pytest.approx(points[0]["latency_ms"], abs=1e-6)
    png = (out / "frontier-rpi4-cifar_micro-litert-int8.png").read_bytes()
    svg = (out / "frontier-rpi4-cifar_micro-litert-int8.svg").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in svg
    run(*arguments)
    assert (out / "frontier-rpi4-cifar_micro-litert-int8.svg").read_bytes() == svg


def test_the_optimum_lies_on_the_frontier(tables: Path) -> None:
    points = json.loads(run("frontier", *COMMON, "--precision", "int8", "--json"))["points"]
    middle = points[len(points) // 2]
    budget = f"{middle['planned_ms'] + 1e-6:.6f}ms"
    answer = json.loads(
        run("solve", *COMMON, "--precision", "int8", "--latency", budget, "--k", "1", "--json")
    )
    assert answer["selection"]["best"]["score"] == pytest.approx(middle["score"])


def test_solving_does_not_import_torch(tables: Path) -> None:
    arguments = ["solve", *COMMON, "--precision", "int8", "--latency", "2ms"]
    code = (
        "import sys; from edgeofa.cli.main import command\n"
        f"command()({arguments!r}, standalone_mode=False)\n"
        "assert not {'torch', 'matplotlib', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
