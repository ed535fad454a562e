"""A stale table of one precision does not stop planning with the other, and is named."""

from __future__ import annotations

import pytest
from table_samples import make_table

from edgeofa.errors import StaleTable
from edgeofa.solver import inputs
from edgeofa.solver.inputs import load_candidates
from edgeofa.spaces import load_space
from edgeofa.tables.table import Table
from edgeofa.targets import load_target


def test_a_stale_precision_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*names: object, **_: object) -> Table:
        if "float32" in names:
            raise StaleTable("made with other constants")
        return make_table()

    monkeypatch.setattr(inputs, "find_table", find)
    monkeypatch.setattr(inputs, "build_problem", lambda *_, **__: None)
    target, space = load_target("rpi4"), load_space("cifar_lite")
    with pytest.warns(UserWarning, match="left out: made with other constants"):
        (found,) = load_candidates(target, space, "litert", proxy=True)
    assert found.table.header.precision == "int8"
    with pytest.raises(StaleTable):
        load_candidates(target, space, precision="float32", proxy=True)
