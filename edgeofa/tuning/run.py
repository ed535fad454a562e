"""One tuning under way: what is known of each kernel, what is tried next, what is kept.

The order depends on the seed and on what was found, never on the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod

from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.templates import Config, Knobs, template_for
from edgeofa.errors import DeviceError
from edgeofa.tuning.evaluate import Candidate, Evaluator
from edgeofa.tuning.journal import Trial, TuningJournal
from edgeofa.tuning.search import Frozen, freeze, propose
from edgeofa.tuning.workload import Work

#: candidates that are built and run together
_BATCH = 32
#: of one kernel among them: at first its default and what was the best of others, then more
_FIRST = 4
_EACH = 8
#: so many trials without a gain of at least _GAIN end a kernel's search
_PATIENCE = 16
_GAIN = 0.003
#: a configuration is kept that saves at least this much: modelled times do not vary at all, a
#: clock's intervals have to be apart by more
_MARGIN_MODELLED = 0.001
_MARGIN_CLOCKED = 0.03
#: rounds in which a clock confirms the best of many, which was partly lucky
_CONFIRM_ROUNDS = 15


@dataclass(frozen=True)
class Limits:
    """What a tuning may take: wall time (None: no limit), and trials of one kernel."""

    seconds: float | None = None
    trials: int = 48


#: any time, and as many trials of a kernel as usually find something
USUAL_LIMITS = Limits()


@dataclass(frozen=True)
class Tuned:
    """A kernel's outcome. ``share``: of the time of all kernels with their defaults. ``ratio``: of
    the kept configuration's time to the default's, 1 where the default stays. ``failures``: what
    became of candidates that were out."""

    kernel: str
    calls: int
    share: float
    default_ns: float
    ratio: float
    config: Config
    trials: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a run is: trials and seconds of this run, and the speed-up so far."""

    kernels: int
    pending: int
    new_trials: int
    seconds: float
    speedup: float


class Run:
    """One tuning: what is known of each kernel, and what comes next."""

    def __init__(
        self,
        works: Sequence[Work],
        evaluator: Evaluator,
        journal: TuningJournal,
        limits: Limits,
        seed: int,
        recorded: Mapping[str, Config],
    ):
        machine = evaluator.machine
        self._works = {
            w.kernel.key: w
            for w in works
            if template_for(w.kernel, machine).knobs(w.kernel, machine)
        }
        self._evaluator = evaluator
        self._journal = journal
        self._limits = limits
        self._seed = seed
        self._recorded = recorded
        self._trials = {key: journal.trials(key) for key in self._works}
        for key in self.unusable():
            # a device may have been out of order, or a processor too busy to compile in time
            journal.forget(key)
            self._trials[key] = {}
        self.new_trials = 0

    def batches(self) -> Iterable[None]:
        """Make one batch of trials after another until nothing is left to try."""
        while wanted := self._batch():
            self._make(wanted)
            if not self._defaults_ns():
                raise DeviceError(
                    f"no default runs: {next(iter(self.unusable().values()))}",
                    where=self._evaluator.device.name,
                    hint="edgeofa doctor",
                )
            yield

    def _batch(self) -> list[Candidate]:
        """What is tried next, by what is known and nothing else: the kernels with the fewest
        trials, of those the heaviest; none when all searches are over."""
        works = self._defaults_ns()
        order = {key: number for number, key in enumerate(self._works)}
        pending = [
            k for k in self._works if (k in works or not self._trials[k]) and self._is_open(k)
        ]
        pending.sort(
            key=lambda k: (
                len(self._trials[k]) // _EACH if self._trials[k] else -1,
                -self._weight(k) if k in works else 0.0,
                order[k],
            )
        )
        found: list[Candidate] = []
        for key in pending:
            if len(found) >= _BATCH:
                break
            found += self._next(key)
        return found

    def _default(self, key: str) -> Config:
        kernel, machine = self._works[key].kernel, self._evaluator.machine
        return dict(freeze(template_for(kernel, machine).default(kernel, machine)))

    def _defaults_ns(self) -> dict[str, float]:
        """What the default of each kernel costs, of those that work."""
        return {key: t.ns for key, t in self._default_trials().items() if t.ns is not None}

    def unusable(self) -> dict[str, str]:
        """Kernels whose default was tried and does not work, and why."""
        return {key: t.reason for key, t in self._default_trials().items() if t.ns is None}

    def _default_trials(self) -> dict[str, Trial]:
        tried = {k: trials.get(freeze(self._default(k))) for k, trials in self._trials.items()}
        return {key: trial for key, trial in tried.items() if trial is not None}

    def _weight(self, key: str) -> float:
        return self._works[key].calls * self._defaults_ns()[key]

    def _next(self, key: str) -> list[Candidate]:
        """Candidates of a kernel that come next; none when its search is over."""
        if not self._is_open(key):
            return []
        trials, knobs = self._trials[key], self._knobs(key)
        kernel = self._works[key].kernel
        count = min(_EACH if trials else _FIRST, self._limits.trials - len(trials))
        known = {config: t.ns for config, t in trials.items()}
        hints = self._hints(kernel) if not trials else ()
        configs = propose(knobs, self._default(key), known, count, f"{self._seed} {key}", hints)
        return [Candidate(kernel, config) for config in configs]

    def _hints(self, kernel: Kernel) -> list[Config]:
        """What is on record for it, and what was the best of kernels of its kind, the most
        frequent first."""
        counts: dict[Frozen, int] = {}
        for key, trials in self._trials.items():
            other = self._works[key].kernel
            is_kin = other.kind == kernel.kind and other.dtype == kernel.dtype
            if is_kin and len(trials) > 1 and any(t.ns is not None for t in trials.values()):
                best = freeze(_least(trials)[2])
                counts[best] = counts.get(best, 0) + 1
        kin: list[Config] = [
            dict(config) for config in sorted(counts, key=lambda c: (-counts[c], c))
        ]
        own = self._recorded.get(kernel.key)
        return kin if own is None else [own, *kin]

    def _is_open(self, key: str) -> bool:
        """There is something left to try, and hope for a gain."""
        trials = self._trials[key]
        size = prod(len(values) for values in self._knobs(key).values())
        if len(trials) >= min(self._limits.trials, size):
            return False
        return not _stalled([t.ns for t in trials.values()])

    def _knobs(self, key: str) -> Knobs:
        kernel, machine = self._works[key].kernel, self._evaluator.machine
        return template_for(kernel, machine).knobs(kernel, machine)

    def _make(self, candidates: Sequence[Candidate]) -> None:
        trials = self._evaluator.evaluate(candidates, self._defaults_ns())
        self._journal.add(trials)
        for trial in trials:
            self._trials[trial.kernel][freeze(trial.config)] = trial
        self.new_trials += len(trials)

    def report(self, progress: Callable[[Progress], None], seconds: float) -> None:
        defaults = self._defaults_ns()
        before = sum(self._works[k].calls * ns for k, ns in defaults.items())
        after = sum(self._works[k].calls * _least(self._trials[k])[0] for k in defaults)
        pending = sum(self._is_open(k) for k in defaults)
        speedup = before / after if after else 1.0
        progress(Progress(len(self._works), pending, self.new_trials, seconds, speedup))

    def verdicts(self) -> tuple[Tuned, ...]:
        """The outcome of every kernel whose default is known, heaviest first."""
        defaults = self._defaults_ns()
        total = sum(self._weight(k) for k in defaults)
        best = {k: self._best(k, ns) for k, ns in defaults.items()}
        if self._evaluator.is_clocked:
            best = self._confirmed(best)
        return tuple(
            Tuned(
                kernel=key,
                calls=self._works[key].calls,
                share=self._weight(key) / total,
                default_ns=defaults[key],
                ratio=best[key][0],
                config=best[key][1],
                trials=len(self._trials[key]),
                failures=_failures(self._trials[key].values()),
            )
            for key in sorted(defaults, key=lambda k: (-self._weight(k), k))
        )

    def _best(self, key: str, default_ns: float) -> tuple[float, Config]:
        """Ratio to the default and configuration of what is to be kept."""
        ns, high_ns, config = _least(self._trials[key])
        margin = _MARGIN_CLOCKED if self._evaluator.is_clocked else _MARGIN_MODELLED
        if high_ns > default_ns * (1 - margin):
            return 1.0, self._default(key)
        return ns / default_ns, config

    def _confirmed(
        self, best: Mapping[str, tuple[float, Config]]
    ) -> dict[str, tuple[float, Config]]:
        """What a clock says again of those that are to be kept, by themselves with the default."""
        found = dict(best)
        wanted = [k for k, (ratio, _) in best.items() if ratio < 1]
        defaults = self._defaults_ns()
        for part in _parts(wanted, _BATCH):
            candidates = [Candidate(self._works[k].kernel, best[k][1]) for k in part]
            trials = self._evaluator.evaluate(candidates, defaults, rounds=_CONFIRM_ROUNDS)
            for key, trial in zip(part, trials, strict=True):
                sure = trial.ns is not None and trial.high_ns <= defaults[key] * (
                    1 - _MARGIN_CLOCKED
                )
                found[key] = (
                    (trial.ns / defaults[key], best[key][1])
                    if sure and trial.ns is not None
                    else (1.0, self._default(key))
                )
        return found


def _least(trials: Mapping[Frozen, Trial]) -> tuple[float, float, Config]:
    """Cost, upper end and configuration of the cheapest trial; of equals the first."""
    costs = [
        (trial.high_ns, number, trial.ns, trial.config)
        for number, trial in enumerate(trials.values())
        if trial.ns is not None
    ]
    high_ns, _, ns, config = min(costs, key=lambda c: c[:2])
    return ns, high_ns, config


def _stalled(costs: Sequence[float | None]) -> bool:
    """The last trials found nothing better than those before them."""
    if len(costs) <= _PATIENCE:
        return False
    before = [c for c in costs[:-_PATIENCE] if c is not None]
    lately = [c for c in costs[-_PATIENCE:] if c is not None]
    if not before:
        return False
    return not lately or min(lately) > min(before) * (1 - _GAIN)


def _failures(trials: Iterable[Trial]) -> tuple[str, ...]:
    return tuple(
        f"{' '.join(f'{k}={v}' for k, v in t.config.items())}: {t.reason}"
        for t in trials
        if t.ns is None
    )


def _parts(items: Sequence[str], size: int) -> Iterable[list[str]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
