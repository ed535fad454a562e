"""Whether TVM is installed, and in the versions that edgeofa knows. Nothing here imports TVM."""

from __future__ import annotations

from importlib import metadata

from edgeofa.errors import SetupError

#: Both exact, as in pyproject.toml. The compiler's passes decide what code comes out, so that every
#: published time and every tuned schedule belongs to one version; the runner declares tvm-ffi's C
#: interface for itself; and tvm-ffi 0.1.15 crashes in any JSON serialisation of this TVM.
VERSIONS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
PIP_COMMAND = "pip install " + " ".join(f"{name}=={pin}" for name, pin in VERSIONS.items())


def tvm_problem() -> str | None:
    """Why the installed TVM cannot be used; None where it can."""
    wrong = []
    for name, pin in VERSIONS.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"the package {name} is not installed"
        if found != pin:
            wrong.append(f"{name} {found} is installed, and edgeofa knows {pin}")
    return "; ".join(wrong) or None


def is_installed() -> bool:
    """Any version of TVM is there: then a wrong one is a mistake, and not an extra left out."""
    try:
        metadata.version("apache-tvm")
    except metadata.PackageNotFoundError:
        return False
    return True


def require_tvm() -> None:
    """``SetupError`` with the pip command where TVM cannot be used; call it before importing it."""
    problem = tvm_problem()
    if problem is not None:
        raise SetupError(problem, where="back end tvm", hint=PIP_COMMAND)
