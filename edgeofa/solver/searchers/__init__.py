"""Searchers with one interface: the built-in ones, and plugins by entry point.

A plugin of the group ``edgeofa.searchers`` is named like its searcher and loads to a ``Searcher``
class that needs no arguments.
"""

from __future__ import annotations

import difflib
import warnings
from importlib import import_module
from importlib.metadata import entry_points

from edgeofa.errors import UsageError
from edgeofa.solver.searchers.base import Searcher, SearchResult, Step

__all__ = ["SearchResult", "Searcher", "Step", "get_searcher", "searcher_names"]

GROUP = "edgeofa.searchers"

_BUILT_IN = {
    "anytime": ("edgeofa.solver.anytime", "AnytimeSearcher"),
    "mcts": ("edgeofa.solver.searchers.mcts", "MonteCarloTreeSearch"),
    "ofa-evolution": ("edgeofa.solver.searchers.ofa", "OfaEvolution"),
    "random": ("edgeofa.solver.searchers.simple", "RandomSearcher"),
    "regularised": ("edgeofa.solver.searchers.simple", "RegularisedEvolution"),
    "smbo": ("edgeofa.solver.searchers.smbo", "ModelBasedSearch"),
}


def searcher_names() -> list[str]:
    """Names of the built-in searchers and of installed plugins."""
    return sorted({*_BUILT_IN, *(e.name for e in entry_points(group=GROUP))})


def get_searcher(name: str) -> Searcher:
    """A searcher with its default settings.

    A built-in name always means the built-in class. A plugin that does not load, or is no
    ``Searcher``, is named in a warning and skipped.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        made: Searcher = getattr(import_module(module), attribute)()
        return made
    for plugin in entry_points(group=GROUP, name=name):
        try:
            kind = plugin.load()
            if isinstance(kind, type) and issubclass(kind, Searcher):
                return kind()
        except Exception as error:
            warnings.warn(f"searcher {name!r} does not load: {error}", stacklevel=2)
            continue
        warnings.warn(f"searcher {name!r} is no edgeofa Searcher class", stacklevel=2)
    near = difflib.get_close_matches(name, searcher_names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(searcher_names())}"
    raise UsageError(f"no searcher {name!r}", hint=hint)
