"""The command line as a user meets it: help at once, errors as one message with an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EDGEOFA = Path(sys.executable).parent / "edgeofa"


def edgeofa(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EDGEOFA, *args], capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgeofa.cli.main as m; m.command(); "
        "print([x for x in ('torch', 'numpy', 'tvm', 'pydantic', 'onnx', 'matplotlib') "
        "if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_and_version() -> None:
    assert "deploy" in edgeofa("--help").stdout
    assert edgeofa("--version").stdout.startswith("edgeofa ")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("deploy", "--target", "rpi44", "--latency", "20ms"), "did you mean rpi4"),
        (("deploy", "--target", "rpi4", "--latency", "20"), "write it as 20ms"),
        (("deploy", "--target", "rpi4", "--latency", "20ms", "--backend", "tvm"), "litert"),
        (("deploy", "--target", "rpi4", "--latency", "20ms", "--precision", "int4"), "int8"),
        (("deploy", "--target", "rpi4", "--latency", "20ms", "--space", "x"), "cifar_lite"),
        (("deploy", "--target", "rpi4"), "--latency"),
        (("nonsense",), "nonsense"),
    ],
)
def test_a_wrong_word_is_a_usage_error_that_says_what_to_write(
    args: tuple[str, ...], says: str
) -> None:
    done = edgeofa(*args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_target_verbs() -> None:
    assert "rpi4" in edgeofa("target", "list").stdout
    assert '"clock_hz": 1500000000.0' in edgeofa("target", "show", "rpi4", "--json").stdout
    assert edgeofa("target", "validate", "rpi4").returncode == 0
