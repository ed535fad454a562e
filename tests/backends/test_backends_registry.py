"""Back ends by name, and plugins that misbehave."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import pytest

from edgeofa.backends import registry
from edgeofa.backends.base import Backend, TensorSpec
from edgeofa.errors import UsageError
from edgeofa.graph.ir import Graph


class Plain(Backend):
    """A plugin that works."""

    name = "plain"
    suffix = ".txt"

    def version(self) -> str:
        return "1"

    def serialize(self, graph: Graph) -> bytes:
        return graph.name.encode()

    def specs(self, graph: Graph) -> tuple[TensorSpec, TensorSpec]:
        raise NotImplementedError


@pytest.fixture
def plugins(monkeypatch):
    """Install entry points by ``name="module:attribute"``."""

    def install(**points: str) -> None:
        found = [EntryPoint(name, value, registry.GROUP) for name, value in points.items()]

        def entry_points(**query: str) -> EntryPoints:
            return EntryPoints(found).select(**query)

        monkeypatch.setattr(registry, "entry_points", entry_points)

    return install


def test_built_in_back_ends_have_the_names_they_are_found_by() -> None:
    assert {"litert", "onnxruntime"} <= set(registry.backend_names())
    for name in ("litert", "onnxruntime"):
        backend = registry.get_backend(name)
        assert isinstance(backend, Backend)
        assert backend.name == name
        assert backend.version()[0].isdigit()


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean litert"):
        registry.get_backend("liter")


def test_a_plugin_is_found(plugins, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "plain_plugin", SimpleNamespace(Plain=Plain))
    plugins(plain="plain_plugin:Plain")
    assert "plain" in registry.backend_names()
    assert isinstance(registry.get_backend("plain"), Plain)


@pytest.mark.parametrize(
    ("value", "reason"),
    [("no_such_module_here:X", "No module named"), ("json:dumps", "no subclass")],
)
def test_a_plugin_that_does_not_load_is_named_and_skipped(plugins, value: str, reason: str) -> None:
    plugins(broken=value)
    with pytest.warns(UserWarning, match=reason) as warnings, pytest.raises(UsageError):
        registry.get_backend("broken")
    assert "broken" in str(warnings[0].message)
    assert registry.get_backend("litert").name == "litert"


def test_a_plugin_cannot_replace_a_built_in(plugins) -> None:
    plugins(litert="json:dumps")
    assert type(registry.get_backend("litert")).__module__ == "edgeofa.backends.litert"
