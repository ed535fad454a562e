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
        (("deploy", "--target", "rpi4", "--latency", "20ms", "--backend", "glow"), "litert"),
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


def _fails_with(error: str) -> subprocess.CompletedProcess[str]:
    """The command line with a verb that raises ``error`` from deep inside."""
    code = (
        "import sys, edgeofa.targets as t, edgeofa.cli.main as m\n"
        f"def broken(name): raise {error}\n"
        "t.load_target = broken\n"
        "sys.argv = ['edgeofa', 'target', 'validate', 'rpi4']\n"
        "m.main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_an_interrupt_says_how_to_go_on() -> None:
    done = _fails_with("KeyboardInterrupt")
    assert done.returncode == 130
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_message() -> None:
    done = _fails_with("OSError(28, 'No space left on device', '/some/file')")
    assert done.returncode == 4
    assert "/some/file: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
