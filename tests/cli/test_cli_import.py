"""``edgeofa import``, run as the sub-command tree that it is."""

from __future__ import annotations

import json
from pathlib import Path

from material import material
from typer.testing import CliRunner

from edgeofa.cli.import_ import app
from edgeofa.errors import MissingMaterial
from edgeofa.tables.store import open_table


def test_official_files_become_a_table_and_a_predictor(tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path))  # type: ignore[attr-defined]
    file = material("ofa/note10/224_lookup_table.yaml")
    done = CliRunner().invoke(
        app, ["table", str(file), "--target", "note10", "--device", "Samsung Note10", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["header"]["evidence"] == "measured"
    _, table = open_table("note10/ofa_mbv3_w12-litert-float32")
    assert table.header.device["name"] == "Samsung Note10"
    out = tmp_path / "p.safetensors"
    file = material("ofa/acc_predictor.pth")
    done = CliRunner().invoke(app, ["predictor", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "128-400-400-400-1" in done.stdout
    assert out.is_file()


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    arguments = ["table", str(tmp_path / "no.yaml"), "--target", "x", "--device", "x"]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, MissingMaterial)
