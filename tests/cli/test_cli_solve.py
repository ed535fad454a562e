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

#: the back end whose table the tests make up: others have published ones
LITERT = ["--backend", "litert"]
COMMON = ["--target", "rpi4", "--space", "cifar_micro", "--random-weights", *LITERT]


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


@pytest.fixture
def phone(tables: Path) -> Path:
    """A table under a name without a target file, as an import leaves it."""
    table = noisy_table("cifar_micro", 5)
    header = dataclasses.replace(table.header, target="phone", target_digest="no target file")
    write_table(dataclasses.replace(table, header=header), tables)
    return tables


BOTH = ["--target", "rpi4,phone", *COMMON[2:], "--precision"]


def test_solve_for_two_targets(phone: Path) -> None:
    budgets = ["--latency", "2ms,1.5ms", "--sram", "64KB,-"]
    answer = json.loads(run("solve", *BOTH, "int8", *budgets, "--k", "5", "--json"))
    best = answer["selection"]["best"]
    assert [answer["target"], *(p["target"] for p in answer["others"])] == ["rpi4", "phone"]
    assert best["planned_ms"] <= 2
    assert best["others"][0]["planned_ms"] <= 1.5
    alone = json.loads(
        run("solve", *COMMON, "--precision", "int8", "--latency", "2ms", "--k", "1", "--json")
    )
    assert alone["selection"]["best"]["score"] >= best["score"]
    text = run("solve", *BOTH, "int8", *budgets, "--explain")
    assert "on phone: litert, int8" in text
    assert "latency on phone" in text
    with pytest.raises(UsageError, match=r"3 budgets for 2 target\(s\)"):
        run("solve", *BOTH, "int8", "--latency", "2ms,1ms,1ms")
    with pytest.raises(UsageError, match="named twice"):
        run("solve", "--target", "phone,phone", "--space", "cifar_micro", "--latency", "2ms")


def test_solve_minimises_explains_and_is_sure(phone: Path) -> None:
    options = ["--target", "phone", "--random-weights"]
    small = json.loads(run("solve", *options, "--minimize", "weight", "--json"))
    assert small["space"] == "cifar_micro"
    assert small["selection"]["best"]["weight_bytes"] == small["selection"]["least"]
    explained = json.loads(run("solve", *options, "--latency", "2ms", "--explain", "--json"))
    (effect,) = explained["explanation"]["budgets"]
    assert (effect["cost"], effect["binds"], effect["more"]) == ("latency", True, "1 ms")
    assert effect["gain"] > 0
    assert explained["explanation"]["differences"]
    sure = json.loads(run("solve", *options, "--latency", "2ms", "--confidence", "0.99", "--json"))
    # the made-up table has no spread, so that nothing changes
    assert sure["selection"]["best"] == explained["selection"]["best"]
    assert sure["confidence"] == 0.99
    with pytest.raises(UsageError, match="not a share"):
        run("solve", *options, "--accuracy", "ninety")
    with pytest.raises(MissingMaterial, match="no imported table"):
        run("solve", *options, "--latency", "2ms", "--precision", "float32")


def test_frontier_of_two_targets_and_of_weights(phone: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out"), "--json"]
    record = json.loads(run("frontier", "--targets", "rpi4,phone", *BOTH[2:], "int8", *out))
    assert record["targets"] == ["rpi4", "phone"]
    assert [(g["cost"], g["board"]) for g in record["goals"]] == [("latency", 0), ("latency", 1)]
    assert record["slack"] == [0, 0]
    assert all(len(p["others"]) == 1 for p in record["points"])
    assert (tmp_path / "out" / "frontier-rpi4-phone-cifar_micro-litert-int8.png").is_file()
    text = run("frontier", *COMMON, "--precision", "int8", "--against", "weight")
    assert "accuracy against weights, bytes" in text


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
