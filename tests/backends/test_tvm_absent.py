"""Without TVM, or with a version that crashes, everything else goes on and the command is named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import metadata

import pytest
from sample_graphs import float_graph, images

from edgeofa.backends.registry import check_backend, get_backend, why_not
from edgeofa.backends.tvm import installed
from edgeofa.deploy import _compilable
from edgeofa.devices.libraries import installed_library
from edgeofa.devices.local import LocalDevice
from edgeofa.errors import DeviceError, SetupError, UsageError
from edgeofa.networks import Network
from edgeofa.placement import place
from edgeofa.setup import prepare, requirements
from edgeofa.solver.inputs import load_candidates
from edgeofa.spaces import load_space
from edgeofa.targets import load_target

HOST, RPI4 = load_target("host"), load_target("rpi4")


@pytest.fixture(params=["absent", "wrong"])
def tvm(request, monkeypatch) -> str:
    """What ``pip`` would say of TVM."""
    real = metadata.version

    def version(name: str) -> str:
        if not name.startswith("apache-tvm"):
            return real(name)
        if request.param == "absent":
            raise metadata.PackageNotFoundError(name)
        return {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.15.post1"}[name]

    monkeypatch.setattr(installed.metadata, "version", version)
    return request.param


def test_the_command_is_named_wherever_it_is_asked_for(tvm: str) -> None:
    words = "not installed" if tvm == "absent" else "apache-tvm-ffi 0.1.15.post1 is installed"
    for ask in (
        lambda: get_backend("tvm"),
        lambda: installed_library("tvm"),
        lambda: prepare(HOST, backend="tvm"),
    ):
        with pytest.raises(SetupError, match=words) as caught:
            ask()
        assert caught.value.hint == installed.PIP_COMMAND
        assert "apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1" in installed.PIP_COMMAND
    assert why_not("tvm") is not None
    assert why_not("litert") is None


def test_doctor_fails_for_a_version_that_crashes_only(tvm: str) -> None:
    target = HOST.model_copy(update={"backends": ("litert", "tvm")})
    (row,) = [r for r in requirements(target) if r.name == "apache-tvm"]
    assert row.found is None
    assert row.is_missing == (tvm == "wrong")
    (wanted,) = [r for r in requirements(HOST, "tvm") if r.name == "apache-tvm"]
    assert wanted.is_missing


def test_its_libraries_for_boards_are_not_downloaded(tvm: str) -> None:
    target = RPI4.model_copy(update={"backends": ("litert", "tvm")})
    names = " ".join(r.name for r in requirements(target))
    assert "litert" in names
    assert "apache-tvm==" not in names
    assert "apache-tvm==" in " ".join(r.name for r in requirements(target, "tvm"))


def test_a_deployment_goes_on_with_the_others(tvm: str, tmp_path) -> None:
    graph = float_graph("network")
    network = Network(graph=graph, inputs=images(graph.input_tensor.shape, 1, seed=3), sqnr_db=None)
    placed = place(network, ("tvm", "litert"), HOST, LocalDevice(), tmp_path, 1)
    assert placed.artifact.backend == "litert"
    (left,) = [c for c in placed.candidates if c.backend == "tvm"]
    assert left.measured_ms is None
    assert "apache-tvm" in left.failure
    assert installed.PIP_COMMAND in left.failure
    with pytest.raises(DeviceError, match="pip install apache-tvm"):
        place(network, ("tvm",), HOST, LocalDevice(), tmp_path, 1)


def test_no_subnet_is_planned_for_what_cannot_be_compiled(tvm: str) -> None:
    (known,) = load_candidates(RPI4, load_space("cifar_micro"), "litert", "int8", proxy=True)
    header = dataclasses.replace(known.table.header, backend="tvm")
    foreign = dataclasses.replace(known, table=dataclasses.replace(known.table, header=header))
    assert _compilable([foreign, known]) == [known]
    with pytest.raises(SetupError, match="apache-tvm"):
        _compilable([foreign])


def test_tables_are_judged_without_it() -> None:
    """Whether a published table is fresh does not hang on what is installed."""
    program = (
        "import sys; sys.modules['tvm'] = sys.modules['tvm_ffi'] = None\n"
        "from edgeofa.backends.tvm.backend import TvmBackend\n"
        "from edgeofa.targets import load_target\n"
        "print(TvmBackend().for_target(load_target('rpi4')).version())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("0.27.0.post1+"), done.stderr


def test_an_unknown_back_end_is_still_a_mistake() -> None:
    check_backend("tvm")
    with pytest.raises(UsageError, match="did you mean tvm"):
        check_backend("tvmm")
