"""A microcontroller from profile to verdict, on its emulated board: nothing is scripted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_space import tiny_space

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.deploy import Request, deploy
from edgeofa.deployment import Budget
from edgeofa.devices.registry import device_for
from edgeofa.errors import NoSubnetFits
from edgeofa.paths import cache_dir
from edgeofa.profiling.profile import profile
from edgeofa.report.progress import Steps
from edgeofa.targets import load_target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(
        not all(map(shutil.which, ("qemu-system-arm", "arm-none-eabi-gcc"))),
        reason="needs qemu-system-arm and gcc-arm-none-eabi",
    ),
]


def test_profile_and_deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cache"
    own.mkdir()
    for shared in ("native", "prices"):
        if (cache_dir() / shared).exists():
            (own / shared).symlink_to((cache_dir() / shared).resolve())
    monkeypatch.setenv("EDGEOFA_CACHE", str(own))
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "tables"))
    target, space = load_target("nucleo-l4r5zi"), tiny_space(tmp_path)
    device = device_for(target)
    table = profile(
        target, space, FirmwareBackend(), "int8", resolutions=[8], device=device, subnets=5
    )
    rows = table.rows.values()
    assert all(row.status == "ok" and row.evidence == "modelled" for row in rows)
    assert all(row.energy_mj is not None and row.peak_bytes > 0 for row in rows)
    # flashing does not dominate: many blocks share an image
    assert len(list((own / "firmware").iterdir())) <= 5 < len(rows)
    fit = table.header.additivity
    assert fit is not None
    assert fit.mape_percent < 3

    slowest = 2 * sum(row.latency_ms for row in rows)
    request = Request(
        target=target.name,
        space=str(tmp_path / "tiny.toml"),
        budget=Budget(latency_ms=slowest, sram_bytes=65536, flash_bytes=524288),
        out=tmp_path / "out",
        random_weights=True,
    )
    with Steps() as steps:
        made, folder = deploy(request, steps, device)
    assert made.verdict == "met"
    assert made.measured_ms == pytest.approx(made.predicted_ms, rel=0.03)
    assert made.output_error.max_steps == 0
    assert (folder / "report.html").is_file()
    hopeless = Request(
        target=target.name,
        space=request.space,
        budget=Budget(latency_ms=slowest, sram_bytes=100),
        out=tmp_path / "none",
        random_weights=True,
    )
    with pytest.raises(NoSubnetFits), Steps() as steps:
        deploy(hopeless, steps, device)
