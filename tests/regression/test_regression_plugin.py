"""The pytest plugin in somebody else's repository, on this machine, and the documented example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest
from regression_world import make_deployment

DOCS = Path(__file__).resolve().parents[2] / "docs"
BIN = Path(sys.executable).parent

TESTS = """
import numpy as np
import pytest


@pytest.mark.edgeofa(target="host", deployment="one")
def test_checks(edgeofa_deployment, edgeofa_device, edgeofa_target):
    found = edgeofa_deployment.check(runs=20)
    assert found.evidence == "measured"
    assert edgeofa_target.name == "host"
    assert edgeofa_device.name == found.device


def test_the_only_one(edgeofa_deployment):
    outputs = edgeofa_deployment.run(np.zeros((3, 12, 12, 4), np.float32))
    assert outputs.shape == (3, 5)
    assert (outputs[0] == outputs[1]).all()


@pytest.mark.edgeofa(target="host", latency="1ns")
def test_over_budget(edgeofa_deployment):
    raise AssertionError("the fixture fails before")


@pytest.mark.edgeofa(target="host", latency="1s")
def test_within_budget(edgeofa_deployment):
    assert edgeofa_deployment.latency().ms < 1000


@pytest.mark.edgeofa(target="rpi4")
def test_for_another_target(edgeofa_deployment):
    raise AssertionError("it is skipped")


@pytest.mark.edgeofa(deployment="two")
def test_unknown_deployment(edgeofa_deployment):
    raise AssertionError("the fixture fails before")


def test_plain():
    import sys

    assert "torch" not in sys.modules
    assert "onnx" not in sys.modules
"""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    loaded = any(e.value == "edgeofa.pytest_plugin" for e in entry_points(group="pytest11"))
    plugin = [] if loaded else ["-p", "edgeofa.pytest_plugin"]
    return subprocess.run(
        [BIN / "pytest", "-q", "-rA", "-p", "no:cacheprovider", *plugin, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def outcomes(text: str) -> dict[str, str]:
    found = re.findall(r"(?m)^(PASSED|FAILED|ERROR) \S+::(\w+)", text)
    return {name: result for result, name in found}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "test_board.py").write_text(TESTS)
    make_deployment(tmp_path / "deployments" / "one")
    return tmp_path


@pytest.mark.device
def test_a_team_tests_its_deployments(repository: Path) -> None:
    done = run_pytest(repository, "--edgeofa-target", "host")
    assert outcomes(done.stdout) == {
        "test_checks": "PASSED",
        "test_the_only_one": "PASSED",
        "test_over_budget": "ERROR",
        "test_within_budget": "PASSED",
        "test_unknown_deployment": "ERROR",
        "test_plain": "PASSED",
    }, done.stdout + done.stderr
    assert "the budget is 1e-06 ms" in done.stdout
    assert "no deployment two to host" in done.stdout
    assert "for target rpi4, not host" in done.stdout


def test_a_plain_run_takes_no_device_and_imports_nothing(repository: Path) -> None:
    done = run_pytest(repository)
    assert done.returncode == 0, done.stdout
    assert outcomes(done.stdout) == {"test_plain": "PASSED"}
    assert done.stdout.count("pass --edgeofa-target") == 6
    assert "6 skipped" in done.stdout
    code = (
        "import sys, edgeofa.pytest_plugin; "
        "print([m for m in ('numpy', 'torch', 'pydantic', 'typer') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_wrong_marker_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import pytest\n@pytest.mark.edgeofa(traget='host')\ndef test_x(edgeofa_deployment): ...\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 4
    assert "not traget" in done.stderr


def test_damaged_deployments_are_an_error_of_the_test(repository: Path) -> None:
    (repository / "deployments" / "one" / "model.tflite").write_bytes(b"not this")
    done = run_pytest(repository, "--edgeofa-target", "host", "-k", "only_one")
    assert outcomes(done.stdout) == {"test_the_only_one": "ERROR"}
    assert "not the file that the deployment was recorded with" in done.stdout


# ---------------------------------------------------------------------------- the command line


def edgeofa(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "edgeofa", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.device
def test_the_command_line_on_this_machine(repository: Path) -> None:
    done = edgeofa(
        repository, "test", "--target", "host", "--runs", "100", "--junit", "r.xml", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert ElementTree.parse(repository / "r.xml").getroot().tag == "testsuites"  # noqa: S314
    for options, code, says in (
        (("test", "--target", "rpi4"), 2, "only to host"),
        (("test", "--target", "host", "none"), 2, "no such folder"),
        (("test", "--target", "host", "--emulator-time", "12 apples"), 2, "apples"),
        (("baseline", "history"), 2, "no baselines"),
        (("baseline", "diff", "a.json", "b.json"), 2, "cannot be read"),
    ):
        done = edgeofa(repository, *options)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr


def example() -> tuple[str, dict[str, str]]:
    """The commands and the files of the documented example."""
    text = (DOCS / "regression.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- (run|file): (\S+) -->\n```\w+\n(.*?)```\n", text, re.DOTALL)
    files = {name: content for kind, name, content in blocks if kind == "file"}
    (once,) = [content for kind, _, content in blocks if kind == "run"]
    return once, files


def test_the_documented_workflow_runs_the_documented_script() -> None:
    _, files = example()
    assert set(files) == {
        "tests/test_on_device.py",
        "ci/on_device.sh",
        ".github/workflows/on-device.yml",
    }
    assert "- run: sh ci/on_device.sh" in files[".github/workflows/on-device.yml"]


@pytest.mark.emulated
def test_the_documented_example_works_as_it_stands(tmp_path: Path) -> None:
    once, files = example()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "once.sh").write_text("set -eu\n" + once)
    summary = tmp_path / "summary.md"
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    for script in ("once.sh", "ci/on_device.sh"):
        done = subprocess.run(
            ["sh", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == [
        "edgeofa.html",
        "edgeofa.json",
        "edgeofa.xml",
        "pytest.xml",
    ]
    (suite,) = ElementTree.parse(tmp_path / "reports" / "pytest.xml").iter("testsuite")  # noqa: S314
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "0", "1")
    assert "✅ passed" in summary.read_text()
    assert list((tmp_path / "baselines" / "rpi4" / "camera").iterdir())
