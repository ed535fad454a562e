"""Trains a supernet: sandwich rule, in-place distillation, weight averaging, a time budget."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeofa.accuracy.features import subnet_macs
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import MissingMaterial
from edgeofa.spaces.space import Space, Subnet
from edgeofa.training.data import Images, augment, preprocess
from edgeofa.training.fast import fast_path
from edgeofa.training.imagenet import find_lite0_weights, load_lite0
from edgeofa.training.parallel import Workers
from edgeofa.training.recalibrate import subnet_accuracy
from edgeofa.training.recipe import Recipe
from edgeofa.training.state import Progress, check_run, load_average, load_state, save_state

__all__ = ["Budget", "Trainer"]

_CHECKPOINT_S = 240.0
_LOG_S = 60.0
_EVALUATE_S = 900.0


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``seconds`` of training in all, or ``steps``, whichever is first.

    ``stop_at_step`` interrupts a longer training, whose schedule it leaves alone.
    """

    seconds: float = math.inf
    steps: int | None = None
    stop_at_step: int | None = None

    def progress(self, state: Progress) -> float:
        """Fraction of the training that is done, from 0 to 1."""
        by_time = state.elapsed_s / self.seconds
        by_steps = 0.0 if self.steps is None else state.step / self.steps
        return min(1.0, max(by_time, by_steps))


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

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.supernet = Supernet(self.space)
        self._forward = fast_path(self.space)
        if self.recipe.imagenet:
            load_lite0(self.supernet, find_lite0_weights())
        nn.init.zeros_(self.supernet.classifier.weight)
        nn.init.zeros_(self.supernet.classifier.bias)
        self.average = copy.deepcopy(self.supernet).requires_grad_(False)
        groups = _parameter_groups(self.supernet, self.recipe.weight_decay)
        self._epoch, self._order = -1, torch.empty(0)
        self._optimiser: torch.optim.Optimizer
        if self.recipe.optimiser == "sgd":
            self._optimiser = torch.optim.SGD(
                groups, self.recipe.rate, momentum=0.9, nesterov=True, foreach=True
            )
        else:
            self._optimiser = torch.optim.AdamW(
                groups, self.recipe.rate, betas=(0.9, 0.99), foreach=True
            )

    @property
    def state_path(self) -> Path:
        return self.out / "state.pt"

    @cached_property
    def identity(self) -> dict[str, str]:
        """What this is a training of: recipe, seed, and the images that it learns from."""
        recipe = json.dumps(asdict(self.recipe), sort_keys=True)
        data = hashlib.sha256(self.train.pixels.contiguous().numpy().tobytes())
        data.update(self.train.labels.contiguous().numpy().tobytes())
        return {
            "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:16],
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
        self.progress = load_state(
            self.state_path, self.space.name, self.supernet, self.average, self._optimiser
        )
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
        logged = evaluated = saved = started
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
            if now - evaluated >= _EVALUATE_S and self.workers.first:
                evaluated = now
                self.log(self.evaluate())
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

    def evaluate(self, images: int = 600) -> str:
        """Accuracies of a few averaged subnets on held-out images, as one line."""
        sample, recalibration = self.held_out.first(images), self.train.first(images // 2)
        rng = random.Random(7)
        resolutions = sorted(self.recipe.resolutions_at(1.0))
        low, middle = resolutions[0], resolutions[len(resolutions) // 3]
        subnets = {
            "largest": self.space.largest(middle),
            "largest low": self.space.largest(low),
            "smallest low": self.space.smallest(low),
            **{f"random {i}": self.space.sample_by_choice(rng, middle) for i in range(3)},
        }
        parts = []
        for name, subnet in subnets.items():
            value = subnet_accuracy(self.average, subnet, recalibration.pixels, sample)
            macs = subnet_macs(self.space, subnet) / 1e6
            parts.append(f"{name}@{subnet.resolution} ({macs:.1f}M) {100 * value:.1f}%")
        return f"{time.strftime('%H:%M:%S')} held out: " + ", ".join(parts)

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

    def _others(self, rng: random.Random, progress: float) -> Iterator[Subnet]:
        if progress < self.recipe.alone:
            return
        first_small = rng.random() < self.recipe.smallest
        for i in range(self.recipe.others):
            resolution = self._resolution(rng, progress)
            if i == 0 and first_small:
                yield self.space.smallest(resolution)
            else:
                yield self.space.sample_by_choice(rng, resolution)

    def _resolution(self, rng: random.Random, progress: float) -> int:
        weights = self.recipe.resolutions_at(progress)
        return rng.choices(list(weights), list(weights.values()))[0]

    def _logits(self, pixels: Tensor, subnet: Subnet) -> Tensor:
        x = preprocess(pixels, subnet.resolution, self.space)
        passes = len(x) * self.workers.count
        self.progress.passes += passes
        self.progress.macs += passes * subnet_macs(self.space, subnet)
        if self._forward is not None:
            return self._forward(self.supernet, x, subnet)
        logits: Tensor = self.supernet(x.permute(0, 3, 1, 2), subnet)
        return logits

    def _step(self, progress: float) -> tuple[float, float]:
        """One update; returns the largest subnet's loss and the mean distillation loss."""
        recipe, state = self.recipe, self.progress
        rng = random.Random(f"{self.seed} {state.step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        index = self._batches()
        share = self.workers.share(len(index))
        # all augment the whole batch, so that an image's augmentation does not depend on how many
        pixels = augment(self.train.pixels[index], generator)[share]
        labels = self.train.labels[index][share]
        rise = min(1.0, (state.step + 1) / recipe.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * progress)) * (1 - recipe.final_rate)
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate * rise * (fall + recipe.final_rate)
        self._optimiser.zero_grad(set_to_none=True)
        logits = self._logits(pixels, self.space.largest(self._resolution(rng, progress)))
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        soft, distilled = logits.detach().softmax(1), []
        for subnet in self._others(rng, progress):
            other = F.cross_entropy(self._logits(pixels, subnet), soft)
            other.backward()  # type: ignore[no-untyped-call]
            distilled.append(other.item())
        self.workers.average_gradients(self.supernet.parameters())
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), recipe.clip)
        self._optimiser.step()
        state.step += 1
        state.images += len(index)
        decay = min(recipe.average, (1 + state.step) / (20 + state.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.supernet.parameters()), 1 - decay
            )
        return loss.item(), sum(distilled) / max(len(distilled), 1)
