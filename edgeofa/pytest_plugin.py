"""A pytest plugin: tests of deployments on devices, in a team's own repository.

    @pytest.mark.edgeofa(target="rpi4", deployment="detector", latency="20ms")
    def test_detector(edgeofa_deployment):
        edgeofa_deployment.check()

    pytest --edgeofa-target rpi4 [--edgeofa-device NAME]

Without ``--edgeofa-target`` such tests are skipped, so that a plain ``pytest`` takes no device. The
plugin is loaded in every pytest run beside which edgeofa is installed: it imports nothing before a
fixture is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgeofa.devices.base import Device
    from edgeofa.regression.deployed import Deployed
    from edgeofa.regression.subject import Subject
    from edgeofa.targets import Target

_MARKER = "edgeofa"
_KEYS = ("target", "deployment", "latency")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("edgeofa", "tests of deployments on devices")
    group.addoption("--edgeofa-target", metavar="TARGET", help="test deployments to this target")
    group.addoption("--edgeofa-device", metavar="NAME", help="on this device; else the target's")
    group.addoption(
        "--edgeofa-deployments",
        metavar="DIR",
        help="folder of deployments (deployments in the root directory)",
    )
    group.addoption(
        "--edgeofa-baselines",
        metavar="DIR",
        help="folder of baselines (baselines in the root directory)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "edgeofa(target=..., deployment=..., latency=...): a test of a deployment on a device; "
        "skipped for other targets, failed when it is over its latency budget",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is for another target, before any device is reached."""
    chosen = config.getoption("--edgeofa-target")
    for item in items:
        marker = item.get_closest_marker(_MARKER)
        uses = "edgeofa_deployment" in getattr(item, "fixturenames", ())
        if marker is None and not uses:
            continue
        wanted = None if marker is None else _values(marker)["target"]
        if chosen is None:
            item.add_marker(pytest.mark.skip(reason="runs on a device: pass --edgeofa-target"))
        elif wanted not in (None, chosen):
            item.add_marker(pytest.mark.skip(reason=f"for target {wanted}, not {chosen}"))


@pytest.fixture(scope="session")
def edgeofa_target(request: pytest.FixtureRequest) -> Target:
    """The target of ``--edgeofa-target``."""
    from edgeofa.targets import load_target

    chosen = request.config.getoption("--edgeofa-target")
    if chosen is None:
        pytest.skip("runs on a device: pass --edgeofa-target")
    return load_target(chosen)


@pytest.fixture(scope="session")
def edgeofa_device(request: pytest.FixtureRequest, edgeofa_target: Target) -> Device:
    """The device, reached once in a session."""
    from edgeofa.devices.registry import device_for

    return device_for(edgeofa_target, request.config.getoption("--edgeofa-device"))


@pytest.fixture(scope="session")
def _edgeofa_found(request: pytest.FixtureRequest, edgeofa_target: Target) -> dict[str, Deployed]:
    """Every deployment to the target, by name; all digests are checked."""
    from edgeofa.regression.deployed import find_deployments

    folder = _folder(request.config, "deployments")
    return {d.name: d for d in find_deployments([folder], edgeofa_target.name)}


@pytest.fixture
def edgeofa_deployment(
    request: pytest.FixtureRequest,
    edgeofa_target: Target,
    edgeofa_device: Device,
    _edgeofa_found: dict[str, Deployed],
) -> Subject:
    """The deployment that the marker names (the only one, where it names none), on the device.

    Where the marker gives a latency budget, the deployment is measured first and the test fails
    when it is over it.
    """
    from edgeofa.regression.subject import Subject

    marker = request.node.get_closest_marker(_MARKER)
    values = dict.fromkeys(_KEYS) if marker is None else _values(marker)
    name = values["deployment"]
    if name is None and len(_edgeofa_found) > 1:
        pytest.fail(f"which deployment? the marker can say: {', '.join(_edgeofa_found)}")
    name = name or next(iter(_edgeofa_found))
    if name not in _edgeofa_found:
        pytest.fail(f"no deployment {name} to {edgeofa_target.name}: {', '.join(_edgeofa_found)}")
    subject = Subject(
        edgeofa_target,
        edgeofa_device,
        _edgeofa_found[name],
        _folder(request.config, "baselines"),
    )
    if values["latency"] is not None:
        _within(subject, values["latency"])
    return subject


def _within(subject: Subject, budget: str) -> None:
    from edgeofa.units import parse_quantity

    limit_ms = parse_quantity(budget, "time")
    found = subject.latency()
    if found.ms > limit_ms:
        pytest.fail(
            f"{subject.deployed.name} takes {found.ms:.3f} ms on {subject.device.name} "
            f"({found.evidence}, {found.low_ms:.3f} to {found.high_ms:.3f}), "
            f"the budget is {limit_ms:g} ms"
        )


def _values(marker: pytest.Mark) -> dict[str, Any]:
    unknown = sorted(set(marker.kwargs) - set(_KEYS))
    if marker.args or unknown:
        raise pytest.UsageError(
            f"@pytest.mark.edgeofa takes {', '.join(_KEYS)}, by name"
            + (f"; not {', '.join(unknown)}" if unknown else "")
        )
    return {**dict.fromkeys(_KEYS), **marker.kwargs}


def _folder(config: pytest.Config, name: str) -> Path:
    given = config.getoption(f"--edgeofa-{name}")
    return Path(given) if given else config.rootpath / name
