"""What configurations cost on a device, each checked against the graph's executor first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Config, template_for
from edgeofa.devices.base import Device, Failure, Job, Measurement
from edgeofa.profiling.interleaved import interleaved
from edgeofa.tuning.build import Builders, Task
from edgeofa.tuning.journal import Trial
from edgeofa.tuning.search import freeze
from edgeofa.tuning.subject import Subject, make_subject
from edgeofa.workfolder import work_folder

#: of one turn on a clock; hundreds of invokes of a small kernel
_TURN_MS = 4.0
_RUNS = 5
_WARMUPS = 2
_ROUNDS = 7


@dataclass(frozen=True)
class Candidate:
    """A configuration of a kernel."""

    kernel: Kernel
    config: Config


class Evaluator:
    """Builds and runs candidates for one device.

    Args:
        rounds: in which a device with a clock compares a kernel's candidates.
    """

    def __init__(
        self,
        machine: Machine,
        device: Device,
        builders: Builders,
        *,
        seed: int = 0,
        rounds: int = _ROUNDS,
    ):
        self.machine = machine
        self.device = device
        self._builders = builders
        self._seed = seed
        self._rounds = rounds
        self._subjects: dict[str, Subject] = {}

    @property
    def is_clocked(self) -> bool:
        """Costs are a clock's, and vary."""
        return self.device.evidence != "modelled"

    def evaluate(
        self,
        candidates: Sequence[Candidate],
        defaults_ns: Mapping[str, float],
        *,
        rounds: int | None = None,
    ) -> list[Trial]:
        """A trial of each candidate, in their order; one that crashes the compiler, hangs, or
        computes something wrong costs itself only.

        Args:
            defaults_ns: what each kernel's default costs, where that is known. On a clock the
                default runs again beside the candidates, and their costs are its known cost times
                their ratio to it, so that costs of different days can be compared.
        """
        with work_folder("tune") as folder:
            wanted = list(candidates)
            if self.is_clocked:
                wanted += self._references(candidates)
            paths = [folder / f"{number:05}.so" for number in range(len(wanted))]
            tasks = [
                Task(c.kernel.plain, self.machine.key, c.config, path)
                for c, path in zip(wanted, paths, strict=True)
            ]
            reasons = dict(enumerate(self._builders.build(tasks)))
            costs = self._check(wanted, paths, reasons)
            if self.is_clocked:
                costs = self._clock(wanted, paths, costs, defaults_ns, reasons, rounds)
        return [
            Trial(c.kernel.plain.key, c.config, *costs[n])
            if n in costs
            else Trial(c.kernel.plain.key, c.config, None, 0.0, reasons[n] or "it did not run")
            for n, c in enumerate(candidates)
        ]

    def _references(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The default of each kernel that is not among its candidates."""
        found: dict[str, Candidate] = {}
        for c in candidates:
            kernel = c.kernel.plain
            default = template_for(kernel, self.machine).default(kernel, self.machine)
            found[kernel.key] = Candidate(kernel, dict(default))
        asked = {(c.kernel.plain.key, freeze(c.config)) for c in candidates}
        return [c for key, c in found.items() if (key, freeze(c.config)) not in asked]

    def _subject(self, kernel: Kernel) -> Subject:
        key = kernel.plain.key
        if key not in self._subjects:
            self._subjects[key] = make_subject(kernel)
        return self._subjects[key]

    def _check(
        self, candidates: Sequence[Candidate], paths: Sequence[Path], reasons: dict[int, str | None]
    ) -> dict[int, tuple[float, float]]:
        """Run everything that was built once; (ns, ns) of what computes the right output."""
        built = [n for n, reason in reasons.items() if reason is None]
        jobs = []
        for n in built:
            given = self._subject(candidates[n].kernel).input
            jobs.append(Job(paths[n], "tvm", input=given, want_output=True, cold=True))
        costs: dict[int, tuple[float, float]] = {}
        for n, outcome in zip(built, self.device.run(jobs), strict=True):
            if isinstance(outcome, Failure):
                reasons[n] = outcome.reason
            elif not self._is_right(candidates[n], outcome):
                reasons[n] = "its output is wrong"
            else:
                ns = float(np.median(outcome.samples_ns))
                costs[n] = ns, ns
        return costs

    def _is_right(self, candidate: Candidate, outcome: Measurement) -> bool:
        output = outcome.output
        return output is not None and self._subject(candidate.kernel).is_right(output)

    def _clock(
        self,
        candidates: Sequence[Candidate],
        paths: Sequence[Path],
        right: Mapping[int, tuple[float, float]],
        defaults_ns: Mapping[str, float],
        reasons: dict[int, str | None],
        rounds: int | None,
    ) -> dict[int, tuple[float, float]]:
        """Costs by a clock, kernel by kernel: all candidates of one in turns with its default."""
        costs: dict[int, tuple[float, float]] = {}
        for key in dict.fromkeys(c.kernel.plain.key for c in candidates):
            group = [n for n in right if candidates[n].kernel.plain.key == key]
            kernel = self._subject(candidates[group[0]].kernel).kernel if group else None
            if kernel is None:
                continue
            default = freeze(template_for(kernel, self.machine).default(kernel, self.machine))
            reference = next((n for n in group if freeze(candidates[n].config) == default), None)
            if reference is None:
                reasons |= dict.fromkeys(group, "the default does not run")
                continue
            jobs = {
                str(n): Job(
                    paths[n], "tvm", warmups=_WARMUPS, runs=_RUNS, min_run_ms=_TURN_MS, cold=True
                )
                for n in group
            }
            found = interleaved(
                self.device,
                jobs,
                str(reference),
                rounds=rounds or self._rounds,
                seed=self._seed,
            )
            base = defaults_ns.get(key, found[str(reference)].ns)
            for n in group:
                compared = found[str(n)]
                if compared.reason:
                    reasons[n] = compared.reason
                else:
                    costs[n] = base * compared.ratio, base * compared.high
        return costs
