"""The files of jobs: their list, inputs and outputs, and how the runner names them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeofa.devices.base import Job
from edgeofa.devices.protocol import TensorInfo
from edgeofa.errors import UsageError
from edgeofa.graph.ir import Array

_MAX_PATH_BYTES = 4096
_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
}


class Files:
    """How the runner finds the files of its jobs: here by their own paths, on a board elsewhere.

    ``seen_as``: how the runner names the working folder, where it is not by ``folder`` itself.
    """

    def __init__(self, folder: Path, seen_as: Path | None = None):
        self.folder = folder
        self.seen_as = folder if seen_as is None else seen_as

    def model(self, job: Job) -> str:
        """How the runner names the model of a job."""
        return str(job.path.resolve())

    def input(self, file: str) -> str:
        """How the runner names an input that lies in the working folder."""
        return str(self.seen_as / file)

    def output(self, file: str) -> str:
        """How the runner names an output that it is to write into the working folder."""
        return str(self.seen_as / file)

    def send(self, jobs: Sequence[Job], inputs: Sequence[str]) -> None:
        """Bring the models of jobs, and inputs, to where the runner looks for them."""

    def fetch(self, file: str, size: int) -> None:
        """Bring a file of ``size`` bytes that the runner wrote into the working folder."""


def write_jobs(
    jobs: Sequence[Job],
    places: Sequence[int],
    job_timeout_s: float,
    files: Files,
) -> Path:
    """The job list for ``places`` of ``jobs``, and their input files, in the working folder."""
    lines: list[str] = []
    inputs: list[str] = []
    for place in places:
        job = jobs[place]
        lines += [
            f"model {_plain(files.model(job))}",
            f"warmups {job.warmups}",
            f"runs {job.runs}",
            f"warmup_ns {round(job.warmup_ms * 1e6)}",
            f"min_ns {round(job.min_run_ms * 1e6)}",
            f"timeout_ms {max(1, round(job_timeout_s * 1e3))}",
            f"cold {int(job.cold)}",
            f"watch {int(job.watch)}",
        ]
        if job.input is not None:
            name = f"input-{place:06d}"
            (files.folder / name).write_bytes(np.ascontiguousarray(job.input).tobytes())
            inputs.append(name)
            lines.append(f"input {_plain(files.input(name))}")
        if job.want_output:
            lines.append(f"output {_plain(files.output(output_name(place)))}")
        lines.append("")
    files.send([jobs[place] for place in places], inputs)
    listing = files.folder / "jobs"
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return listing


def read_output(path: Path, info: TensorInfo) -> Array | None:
    """The raw tensor in ``path``; None unless it has the size and shape that ``info`` tells."""
    dtype = _DTYPES[info.type]
    if info.bytes != math.prod(info.shape) * dtype.itemsize or not path.is_file():
        return None
    if path.stat().st_size != info.bytes:
        return None
    content: Array = np.fromfile(path, dtype=dtype)
    return content.reshape(info.shape)


def output_name(place: int) -> str:
    """The file that the runner writes the output of the job at ``place`` to."""
    return f"output-{place:06d}"


def _plain(text: str) -> str:
    if re.search(r"[\x00-\x1f]", text) or len(text.encode()) >= _MAX_PATH_BYTES:
        raise UsageError("a path with control characters, or too long for the runner", where=text)
    return text
