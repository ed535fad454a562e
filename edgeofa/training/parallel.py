"""Several processes that train one supernet, started by ``torchrun``: a batch is shared out, and
gradients are averaged.

Every process draws the same subnets and images and takes its part of each batch, so that a step is
the step of one process on the whole batch, but for batch norm, which sees the part alone. Torch's
``DistributedDataParallel`` averages in the backward pass; the sandwich rule makes several of them
before one update, of subnets that leave weights out, so here gradients are averaged once, at the
end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgeofa.errors import UsageError

__all__ = ["Workers", "join_workers"]


@dataclass(frozen=True)
class Workers:
    """This process among all; alone by default."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and logs for all."""
        return self.rank == 0

    def share(self, length: int) -> slice:
        """This process's part of a batch.

        Raises:
            UsageError: the batch cannot be shared out evenly.
        """
        if length % self.count:
            raise UsageError(
                f"a batch of {length} cannot be shared by {self.count} processes",
                hint="a number of processes that divides it",
            )
        each = length // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their mean over all processes, in one exchange."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, _parts(flat, gradients), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, *values: float) -> list[float]:
        """The first process's values, for all."""
        if self.count == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return [float(v) for v in shared]


def _parts(flat: Tensor, like: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.split(flat, [g.numel() for g in like])


@contextmanager
def join_workers() -> Iterator[Workers]:
    """The processes that ``torchrun`` started, joined; this one alone without it."""
    if not dist.is_torchelastic_launched():
        yield Workers()
        return
    dist.init_process_group("gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
