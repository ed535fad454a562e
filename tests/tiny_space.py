"""A space of a few small blocks, written where a test wants it."""

from __future__ import annotations

from pathlib import Path

from edgeofa.spaces import Space, load_space

TINY = """
schema_version = 1
name = "tiny"
description = "a tiny space for tests"
classes = 4
resolutions = [8, 12]
padding = "same"
batch_norm_epsilon = 1e-5
kernel_transform = false
preprocess = { mean = [127.0, 127.0, 127.0], std = [128.0, 128.0, 128.0] }
stem = { out = 8, kernel = 3, stride = 2, activation = "relu" }
stages = [
  { out = 8, stride = 1, depths = [1, 2], kernels = [3, 5], expands = [2, 3], activation = "relu" },
  { out = 16, stride = 2, depths = [1, 2], kernels = [3], expands = [2, 3], activation = "relu6" },
]
head = { expand = 24, activation = "relu6" }
"""


def tiny_space(folder: Path) -> Space:
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return load_space(str(path))
