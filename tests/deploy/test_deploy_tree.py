"""A user's own space of another shape on the emulated board: profiled, solved, deployed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.deploy import Request, deploy
from edgeofa.deployment import Budget
from edgeofa.devices.base import Device
from edgeofa.devices.registry import device_for
from edgeofa.errors import MissingMaterial, SetupError
from edgeofa.paths import cache_dir
from edgeofa.profiling.profile import profile
from edgeofa.report.progress import Steps
from edgeofa.solver.inputs import load_candidates
from edgeofa.spaces import load_space
from edgeofa.tables.verify import check_table
from edgeofa.targets import load_target

pytestmark = [pytest.mark.emulated, pytest.mark.device]
RPI4 = load_target("rpi4")

#: every kind of block and of node, in as few blocks as it takes
SPACE = """
schema_version = 2
name = "thicket"
description = "a small tree with a condition and a tied width"
classes = 4
resolutions = [16]
padding = "same"
batch_norm_epsilon = 1e-5
kernel_transform = false
preprocess = { mean = [127.0, 127.0, 127.0], std = [128.0, 128.0, 128.0] }
ties = { width = [8, 16], style = ["plain", "deep"] }
constraints = [{ require = "style == 'plain' or width == 8" }]
body = [
  { block = "stem", out = { tie = "width" }, kernel = 3, stride = 2, activation = "relu" },
  { choose = [
    { block = "max_pool", kernel = 2, stride = 2 },
    { block = "average_pool", kernel = 3, stride = 2 },
    { block = "conv", out = { tie = "width" }, kernel = 3, stride = 2, activation = "none" },
  ] },
  { when = "style == 'deep'", then = [
    { times = [1, 2], tied = true, repeat = [
      { block = "mbconv", out = 8, kernel = [3, 5], expand = 2, activation = "relu6" },
    ] },
  ], else = [
    { choose = [
      { block = "skip" },
      { block = "conv", out = 16, kernel = 1, residual = true, activation = "relu" },
    ] },
  ] },
  { block = "head", expand = 24, activation = "relu" },
]
"""


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The emulated board with what ``edgeofa setup`` prepared, and tables of the test's own."""
    own = tmp_path / "cache"
    own.mkdir()
    for shared in ("native", "runtimes", "sysroots", "prices"):
        if (cache_dir() / shared).exists():
            (own / shared).symlink_to((cache_dir() / shared).resolve())
    monkeypatch.setenv("EDGEOFA_CACHE", str(own))
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "tables"))
    try:
        found = device_for(RPI4)
        found.identity()
    except SetupError as error:
        pytest.skip(f"the emulator is not prepared: {error}")
    return found


def test_a_space_of_the_users_own(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "thicket.toml"
    path.write_text(SPACE)
    space = load_space(str(path))
    # plain: 2 widths, 3 ways down, 2 ends; deep: 1 width, 3 ways down, 2 kernels for 1 or 2 copies
    assert space.count() == 2 * 3 * 2 + 3 * 2 * 2
    with pytest.raises(MissingMaterial, match="no latency table of thicket"):
        load_candidates(RPI4, space, "litert", "int8", proxy=True)

    table = profile(RPI4, space, LiteRtBackend(), "int8", device=device, subnets=5)
    assert check_table(table, space, RPI4) == ()
    kinds = {key.split("-")[0] for key in table.rows}
    assert kinds == {"stem", "conv", "mbconv", "maxpool", "averagepool", "head"}
    assert all(row.latency_ms > 0 for row in table.rows.values())

    every = [space.subnet_at_index(n) for n in range(space.count())]
    (inputs,) = load_candidates(RPI4, space, "litert", "int8", proxy=True)
    planned = {s: table.fit.plan_ms(table.sum_ms(space.blocks(s))) for s in every}
    budget = sorted(planned.values())[len(every) // 2]
    best = max(inputs.accuracy.score(s) for s, ms in planned.items() if ms <= budget + 1e-9)
    request = Request(
        target="rpi4",
        budget=Budget(latency_ms=budget + 1e-9),
        space=str(path),
        precision="int8",
        backend="litert",
        out=tmp_path / "out",
        random_weights=True,
    )
    record, folder = deploy(request, Steps(), device)
    chosen = space.parse(record.choice.attempts[0].subnet)
    assert inputs.accuracy.score(chosen) == pytest.approx(best, rel=1e-12)
    assert record.measured_ms == pytest.approx(record.predicted_ms, rel=0.05)
    assert record.evidence == "modelled"
    assert record.output_error.max_steps is not None
    assert record.output_error.max_relative < 0.1
    assert (folder / "model.tflite").is_file()

    command = [
        sys.executable,
        "-c",
        "from edgeofa.cli.main import main; main()",
        "solve",
        "--target",
        "rpi4",
        "--space",
        str(path),
    ]
    command += ["--latency", f"{budget + 1e-9:.9f}ms", "--random-weights", "--json"]
    done = subprocess.run(
        [*command, "--precision", "int8"], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert str(chosen) in json.dumps(answer)


def test_neighbouring_subnets_of_it_differ_in_their_blocks(tmp_path: Path) -> None:
    path = tmp_path / "thicket.toml"
    path.write_text(SPACE)
    space = load_space(str(path))
    subnets = [space.subnet_at_index(n) for n in range(space.count())]
    for a, b in itertools.combinations(subnets, 2):
        assert space.blocks(a) != space.blocks(b)
