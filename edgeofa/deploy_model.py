"""A model of the user's own on a device: import, compile, place, measure, check, verdict."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeofa.deploy import alone, cost_of
from edgeofa.deployment import Budget, Deployment, ModelRecord
from edgeofa.devices.base import Device
from edgeofa.errors import TooLarge, UsageError
from edgeofa.networks import (
    CALIBRATION_IMAGES,
    COMPARED_IMAGES,
    MEASURED_IMAGES,
    Network,
    load_weights,
    quantised,
)
from edgeofa.placement import place
from edgeofa.report.progress import Steps
from edgeofa.targets import Target

if TYPE_CHECKING:
    from edgeofa.graph.ir import Graph
    from edgeofa.model_data import Examples, Triple


@dataclass(frozen=True)
class ModelRequest:
    """Which model to deploy, and what is asked of it; see ``docs/verbs/deploy.md``."""

    target: str
    model: Path
    budget: Budget
    precision: str = "auto"
    backend: str = "auto"
    threads: int = 1
    data: Path | None = None
    #: mean and deviation of pixels (0 to 255), where ``data`` is a folder of pictures
    normalisation: tuple[Triple, Triple] | None = None
    out: Path | None = None
    seed: int = 0
    #: a configured device, an address or a kind; the target's own by default
    device: str | None = None


@dataclass(frozen=True, eq=False)
class OwnModel:
    """The model as it is deployed, what it was, and labelled examples where there are any."""

    record: ModelRecord
    network: Network
    examples: Examples | None


def deploy_model(
    request: ModelRequest, steps: Steps, device: Device | None = None
) -> tuple[Deployment, Path]:
    """Deploy a model file as it is; returns its record and the folder with artifact and report.

    Args:
        device: a device of the target; by default the one that is configured for it.

    Raises:
        FileFormatError: the file is no model.
        UnsupportedOperator: an operator that the graph does not know, by its index.
        TooLarge: the target's memory does not hold it; by how much, and which layer needs most.
        DeviceError: no back end's artifact could be run, or gave the model's outputs.
    """
    from edgeofa.devices.registry import device_for
    from edgeofa.emulation.energy import energy_mj
    from edgeofa.regression.material import STORED_INPUTS, make_material
    from edgeofa.report.record import make_model_record, write_results
    from edgeofa.targets import load_target

    target = load_target(request.target)
    if request.backend not in ("auto", *target.backends):
        raise UsageError(
            f"target {target.name} has no back end {request.backend!r}",
            hint=f"auto or one of {', '.join(target.backends)}",
        )
    if request.budget.energy_mj is not None and energy_mj(target, 1.0, request.threads) is None:
        raise UsageError(
            f"a budget for energy, and the power of {target.name} is not known",
            where="--energy",
            hint="leave it out, or give the target file its power",
        )
    backends = target.backends if request.backend == "auto" else (request.backend,)
    with steps("import the model"):
        own = read_own_model(request, target)
        network = own.network
    with steps("reach the device"):
        device = device or device_for(target, request.device)
    folder = request.out or Path("deployments") / f"{target.name}-{_slug(request.model.stem)}"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder), TemporaryDirectory(prefix=".work-", dir=folder) as work:
        with steps("compile and run on the device"):
            try:
                placement = place(
                    network,
                    backends,
                    target,
                    device,
                    Path(work),
                    request.threads,
                    compared=STORED_INPUTS,
                    sram_bytes=_working_memory(target, network.graph, request.budget),
                )
            except TooLarge as error:
                raise _with_largest(error, request, target) from error
        missed = request.budget.missed_by(cost_of(target, placement, request.threads))
        with steps("measure accuracy"):
            accuracy = _accuracy(own)
        with steps("report"):
            record = make_model_record(
                request, target, device, own.record, placement, missed, accuracy, steps.seconds
            )
            material = make_material(network.graph, network.inputs)
            deployment = write_results(record, placement.artifact, material, folder)
    return deployment, folder


def read_own_model(request: ModelRequest, target: Target) -> OwnModel:
    """The model in the precision that is asked for, or that the target takes."""
    from edgeofa.graph.importers.model_file import import_model, model_format
    from edgeofa.graph.ops import macs
    from edgeofa.model_data import RAW_PIXELS, load_examples, random_inputs

    graph = import_model(request.model)
    content = request.model.read_bytes()
    record = ModelRecord(
        file=request.model.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        format=model_format(request.model),
        precision=graph.precision,
        macs=macs(graph),
    )
    examples = None
    if request.data is not None:
        examples = load_examples(
            request.data,
            graph,
            MEASURED_IMAGES,
            request.seed,
            request.normalisation or RAW_PIXELS,
        )
    if not _is_quantised_here(request, graph, target):
        inputs = (
            random_inputs(graph, COMPARED_IMAGES, request.seed)
            if examples is None
            else examples.inputs[:COMPARED_IMAGES]
        )
        return OwnModel(record, Network(graph, inputs, None), examples)
    if examples is None:
        raise UsageError(
            f"a float32 model, and {target.name} computes in int8"
            if "float32" not in target.precisions
            else "a float32 model is quantised on examples of its inputs",
            where=request.model,
            hint="--data EXAMPLES.npy, or quantise it to int8 first",
        )
    # what is judged and measured on was not calibrated on, where there is enough
    count = min(CALIBRATION_IMAGES, max(len(examples) // 2, 1))
    calibration, others = examples.inputs[:count], examples.after(count) or examples
    network = quantised(graph, calibration, others.inputs[:COMPARED_IMAGES], compensate=True)
    return OwnModel(record.model_copy(update={"calibration_images": count}), network, others)


def _is_quantised_here(request: ModelRequest, graph: Graph, target: Target) -> bool:
    known = ("auto", *target.precisions)
    if request.precision not in known:
        raise UsageError(
            f"target {target.name} has no precision {request.precision!r}",
            hint=f"one of {', '.join(known)}",
        )
    wanted = request.precision
    if wanted == "auto":
        wanted = graph.precision if graph.precision in target.precisions else target.precisions[0]
    if wanted == "float32" and graph.precision == "int8":
        raise UsageError(
            "an int8 model cannot be deployed in float32",
            where=request.model,
            hint="--precision int8, or the float32 model that it was made from",
        )
    return wanted != graph.precision


def _with_largest(error: TooLarge, request: ModelRequest, target: Target) -> TooLarge:
    """``error`` with what would fit instead, of the target's own space."""
    from edgeofa.fitting import room_on, with_largest
    from edgeofa.spaces import load_space

    if target.mcu is None:
        return error
    space = load_space(target.default_space)
    room = room_on(target, request.budget.sram_bytes, request.budget.flash_bytes)
    weights = load_weights(space, None, request.seed, random=True)
    return with_largest(error, space, target, room, weights)


def _working_memory(target: Target, graph: Graph, budget: Budget) -> int | None:
    """What the artifact's working memory should keep to: the budget; else, where it would not fit
    otherwise, what the target has."""
    from edgeofa.backends.registry import get_backend
    from edgeofa.fitting import room_on

    if target.mcu is None:
        return budget.sram_bytes
    room = room_on(target, budget.sram_bytes, None).ram_bytes
    if budget.sram_bytes is not None or room is None:
        return room
    _, usual = get_backend("firmware").memory(graph)
    return room if usual > room else None


def _accuracy(own: OwnModel) -> tuple[float, int] | None:
    """Top-1 in the graph's own arithmetic on labelled examples, and their number."""
    from edgeofa.graph.reference import run_real

    if own.examples is None or own.examples.labels is None:
        return None
    hits, count, batch = 0, len(own.examples), 32
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        found = run_real(own.network.graph, own.examples.inputs[part])
        hits += int((found.reshape(len(found), -1).argmax(-1) == own.examples.labels[part]).sum())
    return hits / count, count


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "model"
