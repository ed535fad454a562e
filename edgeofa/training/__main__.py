"""``python -m edgeofa.training``: trains a supernet in the background."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path


def _seconds_until(clock: str) -> float:
    """Seconds from now until the next HH:MM of the local clock."""
    now = datetime.now()
    hour, minute = map(int, clock.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then - now if then > now else then + timedelta(days=1) - now).total_seconds()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edgeofa.training", description=__doc__)
    parser.add_argument("--space", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="training time in all, resumed runs included")
    parser.add_argument("--until", help="HH:MM at which the training ends, annealed")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if not (options.minutes or options.until or options.steps):
        parser.error("needs --minutes, --until or --steps")
    # one thread a process: two collapse when the machine is shared
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from edgeofa.errors import EdgeofaError
    from edgeofa.spaces import load_space
    from edgeofa.training.data import load_images
    from edgeofa.training.recipe import recipe_for
    from edgeofa.training.trainer import Budget, Trainer

    torch.set_num_threads(1)
    try:
        space = load_space(options.space)
        trainer = Trainer(
            space=space,
            recipe=recipe_for(space),
            train=load_images(options.data, "train"),
            held_out=load_images(options.data, "held_out"),
            out=options.out,
            seed=options.seed,
            log=lambda line: print(line, flush=True),  # noqa: T201
        )
        trainer.resume()
        seconds = 60 * options.minutes if options.minutes else float("inf")
        if options.until:
            seconds = trainer.progress.elapsed_s + _seconds_until(options.until)
        trainer.run(Budget(seconds=seconds, steps=options.steps))
    except EdgeofaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
