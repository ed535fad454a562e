"""Two processes that train one supernet (about 10 s)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_space import tiny_space

from edgeofa.errors import UsageError
from edgeofa.training.parallel import Workers
from edgeofa.training.state import read_progress

WORKER = """\
import hashlib, sys
from pathlib import Path
import torch
from edgeofa.training import session, trainer

folder = Path(sys.argv[1])

class Seen(trainer.Trainer):
    def save(self):
        rank = self.workers.rank
        grown = [p.detach().numpy().tobytes() for p in self.supernet.parameters()]
        (folder / f"weights-{rank}").write_text(hashlib.sha256(b"".join(grown)).hexdigest())
        used, unused = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))
        used.grad = torch.full((2, 3), 1.0 + rank)
        self.workers.average_gradients([used, unused])
        assert unused.grad is None
        (folder / f"mean-{rank}").write_text(str(used.grad.unique().tolist()))
        (folder / f"agreed-{rank}").write_text(str(self.workers.agree(rank, 0.5)))
        super().save()

session.Trainer = Seen
space = str(folder / "tiny.toml")
session.train(space, folder / "data", folder / "out", None, None, 6, 0, print)
"""


def test_two_processes_keep_the_same_weights(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    rng = np.random.default_rng(0)
    for name in "abcd":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "--standalone", tmp_path / "worker.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    weights = [(tmp_path / f"weights-{rank}").read_text() for rank in range(2)]
    assert weights[0] == weights[1]
    assert [(tmp_path / f"mean-{rank}").read_text() for rank in range(2)] == ["[1.5]"] * 2
    assert [(tmp_path / f"agreed-{rank}").read_text() for rank in range(2)] == ["[0.0, 0.5]"] * 2
    # counted for both, logged by one
    progress = read_progress(tmp_path / "out" / "state.pt", space.name)
    assert (progress.step, progress.images) == (6, 6 * 32)
    # the largest at every step, two others at all but the first
    assert progress.passes == (6 + 2 * 5) * 32
    assert done.stdout.count("done:") == 1


def test_one_process_changes_nothing() -> None:
    alone = Workers()
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    alone.average_gradients([parameter])
    assert parameter.grad.tolist() == [1, 1]
    assert alone.share(7) == slice(0, 7)
    assert alone.agree(0.25, True) == [0.25, 1]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert [Workers(rank, 4).share(32) for rank in (0, 3)] == [slice(0, 8), slice(24, 32)]
    with pytest.raises(UsageError, match="a batch of 32 cannot be shared by 3 processes"):
        Workers(0, 3).share(32)
