"""How fast are networks on microcontrollers? Modelled times beside the published ones.

    python benchmarks/mcu_speed.py [--json FILE] [--model FILE.tflite ...] [--target NAME ...]

Without ``--model``, the two int8 models of MLPerf Tiny, which lie in mlperf_tiny in
EDGEOFA_TEST_DATA, or in shared/data beside the checkout. Each is compiled, linked for every target,
run on its emulated board, and priced by the cycle model of its core: on Cortex-M4 and M33 within 5%
of real boards, elsewhere unvalidated; for a Cortex-M55 instructions are counted.

Requirements, on the NUCLEO-L4R5ZI: faster than every published row, X-CUBE-AI 9 and Plumerai among
them, the model's interval included; and no more memory for activations than the best plans known.
On Cortex-M55: fewer instructions per MAC than CMSIS-NN. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import link, read_network
from edgeofa.devices.base import Job, Measurement
from edgeofa.devices.qemu_board import QemuBoardDevice
from edgeofa.errors import DeviceError, MissingMaterial
from edgeofa.graph.importers.tflite import import_tflite
from edgeofa.graph.ir import Graph
from edgeofa.graph.ops import macs
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.targets import load_target

_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
MODELS = ("pretrainedResnet_quant.tflite", "kws_ref_model.tflite")
TARGETS = ("nucleo-l4r5zi", "nrf5340", "corstone-300")
_JUDGED, _COUNTED = "nucleo-l4r5zi", "corstone-300"


@dataclass(frozen=True)
class Published:
    """A row of the MLPerf Tiny results (github.com/mlcommons/tiny_results_v*), in ms."""

    runtime: str
    round: str
    target: str
    ms: float


@dataclass(frozen=True)
class Reference:
    """What is known of one model: its name, published times, the smallest known activation arena,
    and what CMSIS-NN's newest kernels execute per MAC on a Cortex-M55."""

    name: str
    rows: tuple[Published, ...]
    arena_bytes: int
    m55_instructions_per_mac: float


_L4, _H7 = "nucleo-l4r5zi", "nucleo-h7a3zi"


def _rows(*rows: tuple[str, str, str, float]) -> tuple[Published, ...]:
    return tuple(Published(*row) for row in rows)


#: by input elements and MACs, which a file's name does not decide
REFERENCES = {
    (32 * 32 * 3, 12_501_632): Reference(
        "MLPerf Tiny image classification (ResNet8)",
        _rows(
            ("X-CUBE-AI 9 (STMicroelectronics)", "v1.2", _L4, 165.13),
            ("X-CUBE-AI (STMicroelectronics)", "v1.3", _L4, 165.67),
            ("Plumerai", "v1.1", _L4, 167.76),
            ("Bosch", "v1.1", _L4, 179.02),
            ("X-CUBE-AI (STMicroelectronics)", "v1.1", _L4, 214.0),
            ("microTVM, CMSIS-NN", "v1.1", _L4, 389.56),
            ("TensorFlow Lite Micro (reference)", "v0.5", _L4, 704.23),
            ("X-CUBE-AI 9 (STMicroelectronics)", "v1.2", _H7, 40.84),
            ("Plumerai", "v1.1", _H7, 50.93),
        ),
        49_152,
        0.38,
    ),
    (49 * 10, 2_656_768): Reference(
        "MLPerf Tiny keyword spotting (DS-CNN)",
        _rows(
            ("X-CUBE-AI 9 (STMicroelectronics)", "v1.2", _L4, 43.19),
            ("X-CUBE-AI (STMicroelectronics)", "v1.3", _L4, 43.42),
            ("Plumerai", "v1.1", _L4, 47.78),
            ("Bosch", "v1.2", _L4, 60.16),
            ("X-CUBE-AI (STMicroelectronics)", "v1.1", _L4, 62.87),
            ("microTVM, CMSIS-NN", "v1.1", _L4, 99.81),
            ("TensorFlow Lite Micro (reference)", "v0.5", _L4, 181.92),
            ("X-CUBE-AI 9 (STMicroelectronics)", "v1.2", _H7, 11.32),
            ("Plumerai", "v1.1", _H7, 13.86),
        ),
        16_000,
        0.67,
    ),
}


@dataclass(frozen=True)
class Layer:
    """One layer of one run."""

    name: str
    kind: str
    macs: int
    ms: float
    cycles_per_mac: float | None


@dataclass(frozen=True)
class Row:
    """One model on one target. Where ``evidence`` is estimated, cycles are instructions."""

    model: str
    target: str
    macs: int
    ms: float
    error: float
    evidence: str
    cycles_per_mac: float
    parts_ms: dict[str, float]
    arena_bytes: int
    stack_bytes: int | None
    weight_bytes: int
    #: of the emulated board's whole firmware: code of the network and its kernels, and of the
    #: serial protocol; stack
    firmware_flash_bytes: int
    firmware_ram_bytes: int
    layers: tuple[Layer, ...]
    published: tuple[Published, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    rows: tuple[Row, ...]
    passed: bool


def failures(
    reference: Reference | None, target: str, slowest_ms: float, per_mac: float, arena_bytes: int
) -> tuple[str, ...]:
    """What one row misses of the requirements."""
    if reference is None:
        return ()
    found = []
    if target == _JUDGED:
        best = min(row.ms for row in reference.rows if row.target == target)
        if not slowest_ms < best:
            found.append(f"{slowest_ms:.2f} ms, the interval included, is no less than {best} ms")
        if arena_bytes > reference.arena_bytes:
            found.append(f"an arena of {arena_bytes} bytes, over {reference.arena_bytes}")
    if target == _COUNTED and not per_mac < reference.m55_instructions_per_mac:
        found.append(
            f"{per_mac:.2f} instructions per MAC, CMSIS-NN takes "
            f"{reference.m55_instructions_per_mac}"
        )
    return tuple(found)


def judge(graph: Graph, name: str, target: str, folder: Path) -> Row:
    """Compile, run and compare one model on one target."""
    described = load_target(target)
    assert described.core is not None
    clock_hz = described.core.clock_hz
    artifact = FirmwareBackend().compile(graph, folder / f"{name}.zip")
    (outcome,) = QemuBoardDevice(described).run([Job(artifact.path, "firmware", want_output=True)])
    if not isinstance(outcome, Measurement):
        raise DeviceError(outcome.reason, where=f"{target}, {name}")
    image = link(described, [read_network(artifact.path)], emulated=True)
    ms, error, total = outcome.samples_ns[0] / 1e6, outcome.model_error, macs(graph)
    layers = tuple(
        Layer(
            layer.name,
            layer.kind,
            layer.macs,
            layer_ms,
            layer_ms * clock_hz / 1e3 / layer.macs if layer.macs else None,
        )
        for layer, layer_ms in zip(artifact.layers, outcome.layers_ms, strict=True)
    )
    reference = REFERENCES.get((graph.input_tensor.elements, total))
    per_mac = ms * clock_hz / 1e3 / max(total, 1)
    return Row(
        model=name,
        target=target,
        macs=total,
        ms=ms,
        error=error,
        evidence=outcome.evidence,
        cycles_per_mac=per_mac,
        parts_ms=outcome.parts_ms,
        arena_bytes=artifact.peak_bytes,
        stack_bytes=outcome.stack_bytes,
        weight_bytes=artifact.weight_bytes,
        firmware_flash_bytes=image.flash_bytes,
        firmware_ram_bytes=image.ram_bytes,
        layers=layers,
        published=()
        if reference is None
        else tuple(row for row in reference.rows if row.target == target),
        failures=failures(reference, target, ms * (1 + error), per_mac, artifact.peak_bytes),
    )


def show(row: Row) -> None:
    """One row as some lines."""
    unit = "instructions" if row.evidence == "estimated" else "cycles"
    print(f"{row.model} on {row.target}: {row.macs / 1e6:.2f} M MAC")
    print(
        f"  {row.ms:8.2f} ms  edgeofa, {row.evidence}, ±{100 * row.error:.0f}%; "
        f"{row.cycles_per_mac:.3f} {unit} per MAC"
    )
    for published in row.published:
        speed = f"{published.ms / row.ms:.2f} times edgeofa's"
        print(f"  {published.ms:8.2f} ms  {published.runtime}, {published.round}; {speed}")
    stack = "" if row.stack_bytes is None else f", {row.stack_bytes} bytes of stack"
    print(f"  {row.arena_bytes} bytes of arena{stack}, {row.weight_bytes} bytes of constants")
    print(
        f"  the emulated board's whole firmware: {row.firmware_flash_bytes} bytes of flash, "
        f"{row.firmware_ram_bytes} of RAM, serial protocol and stack included"
    )
    for layer in row.layers:
        per = "" if layer.cycles_per_mac is None else f"{layer.cycles_per_mac:6.2f} per MAC"
        print(f"    {layer.ms:8.3f} ms {per:15} {layer.kind} {layer.name}")
    for failure in row.failures:
        print(f"  MISSED: {failure}")


def default_models() -> list[Path]:
    """The MLPerf Tiny models; ``MissingMaterial`` where they are not."""
    folder = Path(os.environ.get("EDGEOFA_TEST_DATA", _DATA)) / "mlperf_tiny"
    found = [folder / name for name in MODELS]
    for path in found:
        if not path.is_file():
            raise MissingMaterial(
                "no such model", where=path, hint="--model FILE.tflite, or set EDGEOFA_TEST_DATA"
            )
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, nargs="*", default=None)
    parser.add_argument("--target", nargs="*", default=list(TARGETS))
    options: Any = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.model or default_models():
            graph = import_tflite(path)
            for target in options.target:
                rows.append(judge(graph, path.stem, target, Path(folder)))
                show(rows[-1])
    report = Report(tuple(rows), not any(row.failures for row in rows))
    print("passed" if report.passed else "MISSED")
    if options.json:
        write_atomic(options.json, dumps(report) + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
