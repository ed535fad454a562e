"""One accepted deployment for all tests; each works on a copy of its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from regression_world import Bench, make_deployment

from edgeofa.regression.accept import accept
from edgeofa.regression.deployed import open_deployment
from edgeofa.regression.suite import Plan
from edgeofa.targets import load_target


@pytest.fixture(scope="session")
def accepted_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the deployment ``d`` and its baseline in ``baselines``."""
    root = tmp_path_factory.mktemp("accepted")
    made = make_deployment(root / "d")
    plan = Plan(root / "baselines", runs=40)
    accept(load_target("host"), Bench(), open_deployment(made), plan, reason="first")
    return root


@pytest.fixture
def world(accepted_world: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(accepted_world, tmp_path / "world"))
