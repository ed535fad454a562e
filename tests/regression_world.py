"""A small real deployment, and a device that computes for real and takes scripted times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgeofa.backends.registry import get_backend
from edgeofa.deployment import (
    Accuracy,
    ArtifactRecord,
    Budget,
    ChoiceRecord,
    Deployment,
    InputRecord,
    OutputError,
    load_deployment,
    save_deployment,
)
from edgeofa.devices.base import (
    Device,
    DeviceState,
    Endurance,
    Evidence,
    Failure,
    Job,
    Measurement,
    Outcome,
    Progress,
)
from edgeofa.errors import DeviceError
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import DType, Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.regression.material import make_material, save_material

SHAPE = (1, 12, 12, 4)


def small_graph(precision: DType = "int8", seed: int = 0) -> Graph:
    """A stem, two blocks (one with a skip) and a head."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("small", SHAPE)

    def weights(*shape: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        spread = (2 * outputs / np.prod(shape)) ** 0.5
        weight = rng.standard_normal(shape) * spread
        return weight.astype(np.float32), (rng.standard_normal(outputs) * 0.1).astype(np.float32)

    def block(x: int, name: str, cin: int, mid: int, cout: int, stride: int) -> int:
        y = b.conv2d(
            x, *weights(mid, 1, 1, cin, outputs=mid), activation="relu", name=f"{name}.expand"
        )
        y = b.depthwise_conv2d(
            y,
            *weights(1, 3, 3, mid, outputs=mid),
            stride=(stride, stride),
            padding="same",
            activation="relu",
            name=f"{name}.depthwise",
        )
        y = b.conv2d(y, *weights(cout, 1, 1, mid, outputs=cout), name=f"{name}.project")
        return b.add(y, x, name=f"{name}.add") if cin == cout and stride == 1 else y

    x = b.conv2d(
        b.input,
        *weights(8, 3, 3, 4, outputs=8),
        padding="same",
        activation="relu",
        name="0.stem.conv",
    )
    x = block(x, "1.mbconv", 8, 24, 8, 1)
    x = block(x, "2.mbconv", 8, 24, 16, 2)
    x = b.conv2d(x, *weights(32, 1, 1, 16, outputs=32), activation="relu", name="3.head.expand")
    x = b.mean(x, name="3.head.mean")
    x = b.fully_connected(x, *weights(5, 32, outputs=5), name="3.head.classifier")
    graph = b.build(x)
    if precision == "float32":
        return graph
    images = rng.standard_normal((8, *SHAPE[1:])).astype(np.float32)
    return quantize_with(graph, [images])


def small_images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((count, *SHAPE[1:])).astype(np.float32)


def make_deployment(
    folder: Path,
    *,
    precision: DType = "int8",
    backend: str = "litert",
    target: str = "host",
    threads: int = 1,
) -> Path:
    """A deployment of the small graph, as ``edgeofa deploy`` would have written it."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = small_graph(precision)
    compiler = get_backend(backend)
    artifact = compiler.compile(graph, folder / f"model{compiler.suffix}")
    q = artifact.input.quantization
    record = Deployment(
        verdict="met",
        missed=(),
        target=target,
        device="somewhere",
        device_identity={"model": "one"},
        evidence="measured",
        threads=threads,
        space="tiny",
        weights="random",
        subnet="tiny@12/3x2",
        backend=backend,
        precision=precision,
        budget=Budget(latency_ms=1.0),
        predicted_ms=0.1,
        measured_ms=0.1,
        interval_ms=(0.09, 0.11),
        status="ok",
        accuracy=Accuracy(),
        energy_mj=None,
        energy_interval_mj=None,
        weight_bytes=artifact.weight_bytes,
        peak_bytes=artifact.peak_bytes,
        output_error=OutputError(max_relative=0.0, images=1),
        artifact=ArtifactRecord(
            path=f"/elsewhere/{artifact.path.name}",
            sha256=artifact.sha256,
            bytes=artifact.file_bytes,
        ),
        test=save_material(make_material(graph, small_images()), folder),
        input=InputRecord(
            shape=artifact.input.shape,
            layout=artifact.input.layout,
            dtype=artifact.input.dtype,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            scale=None if q is None else q.scale,
            zero_point=None if q is None else q.zero_point,
        ),
        parts_ms={},
        candidates=(),
        choice=ChoiceRecord(
            table="none",
            additivity={},
            calibration_images=0,
            attempts=(),
            runners_up=(),
            frontier=(),
            frontier_points=0,
        ),
        seed=0,
        date="2026-01-01 00:00 UTC",
        seconds={},
        versions={},
    )
    save_deployment(record, folder / "deployment.json")
    return folder


def replace_artifact(folder: Path, content: bytes) -> None:
    """Another artifact, recorded as if the compiler had written it."""
    record = load_deployment(folder / "deployment.json")
    name = Path(record.artifact.path).name
    (folder / name).write_bytes(content)
    artifact = record.artifact.model_copy(
        update={"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    )
    save_deployment(record.model_copy(update={"artifact": artifact}), folder / "deployment.json")


@dataclass
class Bench(Device):
    """Computes with the runtimes of this machine; ``ms`` is the time of every artifact, plus
    ``ms_per_kb`` for its size, so that blocks differ and a larger file is slower."""

    evidence: Evidence = "measured"
    name: str = "bench"
    ms: float = 0.5
    ms_per_kb: float = 0.01
    slower: float = 1.0
    noise: float = 0.002
    machine: float = 1.0
    preemptions: int = 0
    state: DeviceState = field(default_factory=lambda: DeviceState(1.5e9, "performance"))
    facts: dict[str, str] = field(
        default_factory=lambda: {"model": "one", "kernel": "6.1", "litert": "2.3.0 sha256:aa"}
    )
    endurance: Endurance = field(default_factory=lambda: Endurance(1000, 0, 0, 0, 700_000))
    drift: float = 0.0
    #: the device is gone after so many jobs
    dies_after: int | None = None
    refuses: bool = False
    jobs: int = 0
    seed: int = 0

    def identity(self) -> dict[str, str]:
        return dict(self.facts)

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if progress is not None:
            progress(len(jobs))
        return [self._one(job, threads) for job in jobs]

    def _one(self, job: Job, threads: int) -> Outcome:
        self.jobs += 1
        if self.dies_after is not None and self.jobs > self.dies_after:
            raise DeviceError("the link is gone", where=self.name)
        if self.refuses:
            return Failure(job, "the runtime refused it")
        rng = np.random.default_rng([self.seed, self.jobs])
        kb = job.path.stat().st_size / 1024
        ms = (self.ms + self.ms_per_kb * kb) * self.slower * self.machine / threads
        count = max(job.runs, 5)
        samples = 1e6 * ms * (1 + np.abs(rng.normal(0, self.noise, count)))
        if job.watch:
            samples *= np.linspace(1, 1 + self.drift, count)
        clock = self.evidence == "measured"
        return Measurement(
            job=job,
            samples_ns=tuple(samples) if clock or (job.timed and not job.watch) else (),
            evidence=self.evidence,
            model_error=0.0 if clock else 0.2,
            output=compute(job) if job.want_output else None,
            before=self.state if clock else DeviceState(),
            after=self.state if clock else DeviceState(),
            load_ms=1.5 if clock else None,
            peak_rss_bytes=9_000_000 if clock else None,
            yardstick_ns=(33_000 * self.machine,) * 2 if clock else None,
            preemptions=self.preemptions if clock else None,
            endurance=replace(self.endurance, compared=job.runs) if job.watch else None,
        )


def compute(job: Job) -> np.ndarray:
    """The output of the artifact, by this machine's runtimes."""
    content = job.path.read_bytes()
    if job.backend == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        return np.asarray(session.run(None, {source.name: job.input})[0])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], job.input)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
