"""Trains a supernet as a schedule says: distillation, weight averaging, a budget."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeofa.accuracy.features import subnet_macs
from edgeofa.elastic.reorganise import reorganise
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import MissingMaterial, UsageError
from edgeofa.spaces.space import Space, Subnet
from edgeofa.training.data import Images, augment, preprocess
from edgeofa.training.fast import fast_path
from edgeofa.training.imagenet import find_lite0_weights, load_lite0
from edgeofa.training.parallel import Workers
from edgeofa.training.recalibrate import subnet_accuracy
from edgeofa.training.recipe import Recipe
from edgeofa.training.schedules import BACKWARD, schedule_for
from edgeofa.training.state import (
    Progress,
    check_run,
    load_average,
    load_training,
    restore,
    save_state,
)

__all__ = ["Budget", "Trainer"]

_CHECKPOINT_S = 240.0
_LOG_S = 60.0
#: points of a training's curve, evenly over its budget
_POINTS = 12


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``seconds`` of training in all, ``steps``, or ``macs`` of forward and
    backward passes (``Progress.training_macs``), whichever is first.

    ``stop_at_step`` interrupts a longer training, whose schedule it leaves alone.
    """

    seconds: float = math.inf
    steps: int | None = None
    macs: float = math.inf
    stop_at_step: int | None = None

    def progress(self, state: Progress) -> float:
        """Fraction of the training that is done, from 0 to 1."""
        by_time = state.elapsed_s / self.seconds
        by_steps = 0.0 if self.steps is None else state.step / self.steps
        return min(1.0, max(by_time, by_steps, state.training_macs / self.macs))


def _parameter_groups(supernet: Supernet, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for dense weights alone: not for norms, depthwise kernels and transforms."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in supernet.named_parameters():
        dense = parameter.ndim == 4 and ".depthwise." not in name
        dense = dense or name == "classifier.weight"
        (decayed if dense else others).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@dataclass
class Trainer:
    """One training run; ``log`` receives a line a minute."""

    space: Space
    recipe: Recipe
    train: Images
    held_out: Images
    out: Path
    seed: int = 0
    log: Callable[[str], None] = print
    progress: Progress = field(default_factory=Progress)
    #: this process among those that train together
    workers: Workers = field(default_factory=Workers)
    schedule_name: str = "sandwich"
    #: cpu, or cuda: there the plain torch network, in bfloat16 where the hardware has it
    device: str = "cpu"

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.schedule = schedule_for(self.schedule_name, self.space, self.recipe)
        #: accuracies on held-out images along the way, with what had been spent
        self.curve: list[dict[str, float]] = []
        self.teacher: Supernet | None = None
        self.supernet = Supernet(self.space)
        self._forward = fast_path(self.space) if self.device == "cpu" else None
        if self.recipe.imagenet:
            load_lite0(self.supernet, find_lite0_weights())
        nn.init.zeros_(self.supernet.classifier.weight)
        nn.init.zeros_(self.supernet.classifier.bias)
        self.supernet.to(self.device)
        self.average = copy.deepcopy(self.supernet).requires_grad_(False)
        self._epoch, self._order = -1, torch.empty(0)
        self._optimiser = self._new_optimiser()

    def _new_optimiser(self) -> torch.optim.Optimizer:
        groups = _parameter_groups(self.supernet, self.recipe.weight_decay)
        rate = self.recipe.rate
        if self.recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, foreach=True)
        return torch.optim.AdamW(groups, rate, betas=(0.9, 0.99), foreach=True)

    @property
    def state_path(self) -> Path:
        return self.out / "state.pt"

    @cached_property
    def identity(self) -> dict[str, str]:
        """What this is a training of: recipe, schedule, seed, and the images it learns from."""
        recipe = json.dumps(asdict(self.recipe), sort_keys=True)
        data = hashlib.sha256(self.train.pixels.contiguous().numpy().tobytes())
        data.update(self.train.labels.contiguous().numpy().tobytes())
        return {
            "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:16],
            "schedule": self.schedule.text,
            "seed": str(self.seed),
            "data": data.hexdigest()[:16],
        }

    def start_from(self, state: Path) -> None:
        """Starts from the averaged weights of an earlier training, whose costs count on."""
        self.progress = load_average(state, self.space.name, self.supernet)
        self.average.load_state_dict(self.supernet.state_dict())

    def resume(self) -> bool:
        """Continues from the state in ``out`` where there is one.

        Raises ``FileFormatError`` for the state of another recipe, seed or data set.
        """
        if not self.state_path.is_file():
            return False
        if not check_run(self.state_path, self.space.name, self.identity):
            self.log("the state does not say which recipe, seed and data it belongs to")
        stored = load_training(
            self.state_path, self.space.name, self.supernet, self.average, self._optimiser
        )
        if stored.teacher is not None:
            self.teacher = self._frozen(self.supernet)
            restore(self.teacher, stored.teacher, self.state_path)
        self.progress, self.curve = stored.progress, stored.curve
        return True

    def save(self) -> None:
        if not self.workers.first:
            return
        save_state(
            self.state_path,
            self.space.name,
            self.progress,
            self.supernet,
            self.average,
            self._optimiser,
            self.identity,
            self.teacher,
            self.curve,
        )

    def run(self, budget: Budget) -> None:
        """Trains until the budget is spent, or SIGTERM or SIGINT asks to stop.

        The state is on disk when it returns; a killed run loses at most four minutes.
        """
        stopped = []
        handlers = {
            number: signal.signal(number, lambda *_: stopped.append(True))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            self._run(budget, lambda: bool(stopped))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _run(self, budget: Budget, stopped: Callable[[], bool]) -> None:
        if len(self.train) < self.recipe.batch:
            raise MissingMaterial(f"fewer than {self.recipe.batch} training images")
        self.supernet.train()
        state, started, cpu = self.progress, time.monotonic(), time.process_time()
        elapsed, cpu_before = state.elapsed_s, state.cpu_s
        logged = saved = started
        losses: list[tuple[float, float]] = []
        while state.step != budget.stop_at_step:
            # clocks and signals differ between processes; the first one's count
            done, stop = self.workers.agree(budget.progress(state), stopped())
            if done >= 1.0 or stop:
                break
            losses.append(self._step(done))
            now = time.monotonic()
            state.elapsed_s = elapsed + now - started
            state.cpu_s = cpu_before + time.process_time() - cpu
            if now - logged >= _LOG_S or state.step == 20:
                logged = now
                self._log_line(budget.progress(state), losses)
                losses = []
            reached = int(_POINTS * budget.progress(state))
            if reached > int(_POINTS * done) and self.workers.first:
                self._add_point()
            if now - saved >= _CHECKPOINT_S:
                saved = now
                self.save()
        self.save()
        self.log(f"{'stopped' if stopped() else 'done'}: {state}")

    def _log_line(self, progress: float, losses: list[tuple[float, float]]) -> None:
        state = self.progress
        label, soft = (sum(x) / len(losses) for x in zip(*losses, strict=True))
        self.log(
            f"{time.strftime('%H:%M:%S')} {100 * progress:.1f}% step {state.step} "
            f"images {state.images} passes {state.passes} "
            f"images/s {state.images / max(state.elapsed_s, 1e-9):.0f} "
            f"loss {label:.3f} distilled {soft:.3f}"
        )

    def _add_point(self, images: int = 1000) -> None:
        """Adds accuracies of a few averaged subnets on held-out images to the curve."""
        state, began = self.progress, time.monotonic()
        sample, recalibration = self.held_out.first(images), self.train.first(images // 2)
        rng = random.Random(7)
        resolutions = sorted(self.recipe.resolutions_at(1.0))
        low, middle = resolutions[0], resolutions[len(resolutions) // 2]
        subnets = [self.space.largest(middle), self.space.smallest(low)]
        subnets += [self.space.sample_by_choice(rng, middle) for _ in range(3)]
        average = self.average if self.device == "cpu" else copy.deepcopy(self.average).cpu()
        largest, smallest, *others = (
            subnet_accuracy(average, s, recalibration.pixels, sample) for s in subnets
        )
        point = {
            "step": float(state.step),
            "training_macs": state.training_macs,
            "elapsed_s": state.elapsed_s,
            "largest": largest,
            "smallest": smallest,
            "random": sum(others) / len(others),
        }
        self.curve.append(point)
        self.log(
            f"{time.strftime('%H:%M:%S')} held out: largest@{middle} {100 * largest:.1f}%, "
            f"smallest@{low} {100 * smallest:.1f}%, random@{middle} {100 * point['random']:.1f}% "
            f"({time.monotonic() - began:.0f} s)"
        )

    # ---------------------------------------------------------------- one step

    def _batches(self) -> Tensor:
        """Indices of this step's images; every epoch has its own permutation."""
        batch, count = self.recipe.batch, len(self.train)
        epoch, position = divmod(self.progress.step, count // batch)
        if self._epoch != epoch:
            generator = torch.Generator().manual_seed(self.seed * 7919 + epoch)
            self._order = torch.randperm(count, generator=generator)
            self._epoch = epoch
        return self._order[position * batch : (position + 1) * batch]

    def _logits(self, supernet: Supernet, pixels: Tensor, subnet: Subnet, passes: int) -> Tensor:
        """``passes``: what the network will have cost, in forward passes."""
        x = preprocess(pixels, subnet.resolution, self.space)
        images = len(x) * self.workers.count
        macs = images * subnet_macs(self.space, subnet)
        self.progress.passes += images
        self.progress.macs += macs
        self.progress.training_macs += passes * macs
        if self._forward is not None:
            return self._forward(supernet, x, subnet)
        # a view that torch knows as channels-last
        x = x.to(self.device).permute(0, 3, 1, 2)
        half = self.device != "cpu" and torch.cuda.is_bf16_supported()
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            logits: Tensor = supernet(x, subnet)
        return logits.float()

    def _enter(self, phase: int) -> None:
        """Begins a phase of the schedule."""
        entry, state = self.schedule.entry(phase), self.progress
        state.phase = phase
        if entry.restart:
            self.supernet.load_state_dict(self.average.state_dict())
            state.restarted = state.step
        if entry.freeze:
            self.teacher = self._frozen(self.supernet)
        if entry.sort is not None:
            reorganise(self.supernet, entry.sort, self.average)
        # momenta are of channels that may lie elsewhere now
        self._optimiser = self._new_optimiser()
        self.log(f"{time.strftime('%H:%M:%S')} phase {phase} begins at step {state.step}")

    @staticmethod
    def _frozen(supernet: Supernet) -> Supernet:
        """A copy that only looks; its batch norms use each batch's statistics, as a student's."""
        return copy.deepcopy(supernet).requires_grad_(False).train()

    def _soft(self, pixels: Tensor, subnet: Subnet) -> Tensor:
        """The frozen teacher's outputs."""
        if self.teacher is None:
            raise UsageError("this phase has no teacher")
        with torch.no_grad():
            return self._logits(self.teacher, pixels, subnet, 1).softmax(1)

    def _step(self, done: float) -> tuple[float, float]:
        """One update; returns the mean losses of labels and of distillation."""
        recipe, state = self.recipe, self.progress
        rng = random.Random(f"{self.seed} {state.step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        index = self._batches()
        share = self.workers.share(len(index))
        # all augment the whole batch, so that an image's augmentation does not depend on how many
        pixels = augment(self.train.pixels[index], generator)[share]
        labels = self.train.labels[index][share].to(self.device)
        step = self.schedule.step(done, state.step - state.restarted, rng)
        # a coarse budget may leap over a phase; what it would have begun with counts all the same
        while state.phase < step.phase:
            self._enter(state.phase + 1)
        for group in self._optimiser.param_groups:
            group["lr"] = step.rate
        self._optimiser.zero_grad(set_to_none=True)
        soft = None if step.teacher is None else self._soft(pixels, step.teacher)
        told: list[float] = []
        distilled: list[float] = []
        for p in step.passes:
            logits = self._logits(self.supernet, pixels, p.subnet, 1 + BACKWARD)
            parts = []
            if p.labels:
                smoothing = recipe.label_smoothing
                parts.append(F.cross_entropy(logits, labels, label_smoothing=smoothing))
                told.append(parts[-1].item())
            if p.soft and soft is not None:
                parts.append(F.cross_entropy(logits, soft))
                distilled.append(parts[-1].item())
            (p.scale * torch.stack(parts).sum()).backward()  # type: ignore[no-untyped-call]
            if soft is None:
                soft = logits.detach().softmax(1)
        self.workers.average_gradients(self.supernet.parameters())
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), recipe.clip)
        self._optimiser.step()
        state.step += 1
        state.images += len(index)
        age = state.step - state.restarted
        decay = min(recipe.average, (1 + age) / (20 + age))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.supernet.parameters()), 1 - decay
            )
        return sum(told) / len(told), sum(distilled) / max(len(distilled), 1)
