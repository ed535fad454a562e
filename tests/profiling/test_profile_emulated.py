"""Profiling on the emulated board, killed in the middle: the real runtime, the real model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_space import tiny_space

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.devices.base import Device
from edgeofa.devices.registry import device_for
from edgeofa.errors import SetupError
from edgeofa.paths import cache_dir
from edgeofa.profiling.profile import Progress, profile
from edgeofa.profiling.spot import spot_check
from edgeofa.tables.store import read_table, table_path
from edgeofa.tables.verify import check_table
from edgeofa.targets import load_target

pytestmark = [pytest.mark.emulated, pytest.mark.device]
RPI4 = load_target("rpi4")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The emulated board in an empty cache that shares what ``edgeofa setup`` prepared."""
    own = tmp_path / "cache"
    own.mkdir()
    for shared in ("native", "runtimes", "sysroots", "prices"):
        if (cache_dir() / shared).exists():
            (own / shared).symlink_to((cache_dir() / shared).resolve())
    monkeypatch.setenv("EDGEOFA_CACHE", str(own))
    try:
        found = device_for(RPI4)
        found.identity()
    except SetupError as error:
        pytest.skip(f"the emulator is not prepared: {error}")
    return found


class _Killed(BaseException):
    """What no code catches, as a signal that ends the process."""


def test_a_table_of_the_emulated_board(device: Device, tmp_path: Path) -> None:
    space = tiny_space(tmp_path)

    def run(out: str, **more: object) -> Path:
        table = profile(
            RPI4,
            space,
            LiteRtBackend(),
            "int8",
            device=device,
            subnets=5,
            out=tmp_path / out,
            **more,  # type: ignore[arg-type]
        )
        assert check_table(table, space, RPI4) == ()
        assert table.header.evidence == "modelled"
        assert device.identity()["litert"].startswith(
            f"{table.header.runtime_version} sha256:{table.header.runtime_digest}"
        )
        assert table.header.overhead_ms < min(r.latency_ms for r in table.rows.values())
        largest = space.layer_block(8, 0, 1, space.stages[0].layers_at(1)[-1])
        smallest = space.layer_block(8, 0, 1, space.stages[0].layers_at(1)[0])
        assert table.row(largest).latency_ms > table.row(smallest).latency_ms
        assert table.row(largest).energy_mj is not None
        return table_path(tmp_path / out, table)

    def kill(now: Progress) -> None:
        if now.done:
            raise _Killed

    with pytest.raises(_Killed):
        run("killed", progress=kill)
    reused = []
    resumed = run("resumed", progress=lambda now: reused.append(now.reused))
    assert reused[0] > 0
    straight = run("straight", fresh=True)
    for suffix in (".csv", ".toml"):
        assert resumed.with_suffix(suffix).read_bytes() == straight.with_suffix(suffix).read_bytes()
    table = read_table(straight)
    spot = spot_check(table, RPI4, space, LiteRtBackend(), blocks=3, device=device)
    assert not any(differs for _, differs in spot)
