"""Does the device still compute what the deployment's graph says?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.backends.registry import get_backend
from edgeofa.devices.base import Device, Failure, Job
from edgeofa.errors import DeviceError
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.reference import quantization
from edgeofa.regression.blocks import segment_of, segments
from edgeofa.regression.cuts import CUTTABLE, Cuts, open_cuts
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.layers import RELATIVE_LIMIT, LayerFinding, probe_layers, walk_layers
from edgeofa.regression.material import Material
from edgeofa.regression.record import Check, Layer, Status

#: no further image is walked through after this long: an emulator takes its time
_WALK_S = 15.0
#: a network all of whose layers are right differs by piled-up rounding: of the largest output
WHOLE_LIMITS = {"float32": RELATIVE_LIMIT, "int8": 0.5}


def run_images(device: Device, deployed: Deployed, graph: Graph, stored: Array) -> list[Array]:
    """The artifact's output on the device for each image (NHWC, as stored), as stored.

    Raises ``DeviceError`` when an image does not run, or its output is not the graph's.
    """
    source, sink = get_backend(deployed.record.backend).specs(graph)
    jobs = [
        Job(
            deployed.artifact,
            deployed.record.backend,
            warmups=0,
            input=to_runtime(stored[i : i + 1], source),
            want_output=True,
            timed=False,
        )
        for i in range(len(stored))
    ]
    shape, dtype = graph.output_tensor.shape, graph.output_tensor.dtype
    values = []
    for outcome in device.run(jobs, threads=deployed.record.threads):
        if isinstance(outcome, Failure) or outcome.output is None:
            reason = outcome.reason if isinstance(outcome, Failure) else "no output came back"
            raise DoesNotRun(reason, where=device.name)
        value = from_runtime(outcome.output, sink)
        if value.size != math.prod(shape) or value.dtype.name != dtype:
            raise DoesNotRun(f"its output is {value.dtype}{list(value.shape)}", where=device.name)
        values.append(value.reshape(shape))
    return values


class DoesNotRun(DeviceError):
    """The artifact, not the device, is at fault: the runtime refuses it, or it crashes."""


def check_outputs(
    device: Device,
    deployed: Deployed,
    material: Material,
    outputs: Sequence[Array],
    folder: Path,
    *,
    accepted: bool,
    suspect: bool,
    threads: int,
) -> Check:
    """Compare with the oracle; where anything is unexpected, find the layer.

    Args:
        folder: for the parts of the artifact.
        accepted: the outputs are bit for bit those of the baseline, of the same artifact: then
            its layers were judged when it was accepted.
        suspect: something has changed since the baseline: every input is walked through.
    """
    differences = _differences(material, outputs)
    order = sorted(range(len(differences)), key=lambda i: -differences[i])
    largest, unit = differences[order[0]], "steps" if _is_int8(material) else "of the largest"
    limit = _whole_limit(material, deployed.record.backend)
    far = largest > limit
    text = f"{largest:.3g} {unit} from the reference on {len(differences)} inputs"

    def check(status: Status, summary: str, layer: Layer | None = None) -> Check:
        return Check(
            name="outputs", status=status, summary=summary, value=largest, unit=unit, layer=layer
        )

    if accepted and not far:
        return check("passed", f"bit-identical to the baseline, {text}")
    if deployed.record.backend not in CUTTABLE:
        return check(
            "failed" if far else "passed",
            f"{text}, allowed is {limit:.3g}; artifacts of {deployed.record.backend} "
            "cannot be cut, so no layer is named",
        )
    cuts = open_cuts(deployed.artifact, deployed.record.backend, material.graph)
    # without a suspicion one image will do
    thorough = suspect or far or _is_unexpected(material, largest)
    finding = _find_layer(
        device, deployed, material, cuts, order if thorough else order[:1], folder, threads
    )
    if finding is not None:
        keys = [b.block for b in deployed.record.blocks]
        blocks = segments(material.graph, cuts, keys)
        layer = _layer(finding, segment_of(blocks, finding.number))
        return check("failed", f"{_say(layer)}; the network is {text}", layer)
    if far:
        return check(
            "failed", f"{text}, allowed is {limit:.3g}, though no layer by itself is wrong"
        )
    return check("passed", f"{text}; all {len(material.graph.ops)} layers agree by themselves")


def _find_layer(
    device: Device,
    deployed: Deployed,
    material: Material,
    cuts: Cuts,
    images: Sequence[int],
    folder: Path,
    threads: int,
) -> LayerFinding | None:
    """The first wrong layer on stored inputs, else on random values; None where all agree."""
    begin = time.monotonic()
    graph, backend = material.graph, deployed.record.backend
    for image in images:
        if time.monotonic() - begin > _WALK_S:
            break
        x = material.inputs[image : image + 1]
        walk = walk_layers(device, cuts, graph, x, image, folder, backend, threads)
        if walk.finding is not None:
            return walk.finding
    return probe_layers(device, cuts, graph, folder, backend, threads).finding


def _say(layer: Layer) -> str:
    error = f"{layer.relative:.2g} of its largest output"
    if layer.steps is not None:
        error = f"{layer.steps} steps ({error})"
    channels = ", ".join(str(c) for c in layer.channels)
    on = "random values" if layer.image is None else f"stored input {layer.image}"
    return (
        f"layer {layer.layer} ({layer.kind}, block {layer.block}) is the first that differs: "
        f"{error}, {100 * layer.share:.3g}% of its elements, channels {channels}, on {on}"
    )


def _layer(finding: LayerFinding, block: str) -> Layer:
    return Layer(
        layer=finding.layer,
        kind=finding.kind,
        block=block,
        steps=finding.steps,
        relative=finding.relative,
        share=finding.share,
        channels=finding.channels,
        image=finding.image,
    )


def _is_int8(material: Material) -> bool:
    return material.graph.precision == "int8"


def _differences(material: Material, outputs: Sequence[Array]) -> list[float]:
    """The largest difference of each image: in steps, or (float32) of the largest output."""
    found = []
    for value, expected in zip(outputs, material.outputs, strict=True):
        wide = expected.astype(np.float64)
        difference = np.abs(value[0].astype(np.float64) - wide).max()
        if not _is_int8(material):
            difference /= max(float(np.abs(wide).max()), 1e-30)
        found.append(float(difference) if np.isfinite(difference) else 1e30)
    return found


def _whole_limit(material: Material, backend: str) -> float:
    if not _is_int8(material):
        return WHOLE_LIMITS["float32"]
    if get_backend(backend).exact:
        return 0.0
    zero_point = quantization(material.graph, material.graph.output).zero_point
    largest = np.abs(material.outputs.astype(int) - zero_point).max()
    return float(max(1.0, WHOLE_LIMITS["int8"] * largest))


def _is_unexpected(material: Material, largest: float) -> bool:
    """More than a few roundings."""
    return largest > (2.0 if _is_int8(material) else RELATIVE_LIMIT / 10)
