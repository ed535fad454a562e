"""Diff, check and export."""

from __future__ import annotations

import dataclasses
import json

import pytest
from material import material
from table_samples import make_table

from edgeofa.errors import UsageError
from edgeofa.spaces import load_space
from edgeofa.tables.diff import diff_tables
from edgeofa.tables.export import export_table, lookup_name
from edgeofa.tables.table import Additivity, Evidence, Row, Table
from edgeofa.tables.verify import check_table
from edgeofa.targets import load_target


def parse_lookup(text: str) -> dict[str, dict[str, float]]:
    """The part of YAML that look-up tables use."""
    out: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        key, _, value = line.rpartition(":")
        if line.startswith("  "):
            out[next(reversed(out))][key.strip()] = float(value)
        else:
            out[key] = {}
    return out


def changed(table: Table, key: str, **values: object) -> Table:
    row = dataclasses.replace(table.rows[key], **values)  # type: ignore[arg-type]
    return Table(table.header, {**table.rows, key: row})


def test_modelled_rows_differ_beyond_repeatability() -> None:
    old = make_table()
    key = next(iter(old.rows))
    for ratio, expected in ((1.015, 0), (1.025, 1), (0.97, 1)):
        found = diff_tables(old, changed(old, key, latency_ms=0.1 * ratio))
        assert len(found.changed) == expected
        assert found.unchanged == 5 - expected
    assert found.changed[0].ratio == pytest.approx(0.97)
    assert found.mean_ratio == pytest.approx(0.97 ** (1 / 5))


def measured(table: Table) -> Table:
    evidence: Evidence = "measured"
    rows = {k: dataclasses.replace(r, evidence=evidence) for k, r in table.rows.items()}
    return Table(dataclasses.replace(table.header, evidence=evidence), rows)


def test_measured_rows_differ_when_intervals_part() -> None:
    old = measured(make_table())
    key = next(iter(old.rows))
    near = changed(old, key, latency_ms=0.13, latency_low_ms=0.11, latency_high_ms=0.15)
    far = changed(old, key, latency_ms=0.14, latency_low_ms=0.13, latency_high_ms=0.15)
    assert not diff_tables(old, near).changed
    assert [c.block for c in diff_tables(old, far).changed] == [key]


def test_rows_that_came_and_went_and_the_header() -> None:
    old, new = make_table(rows=5), make_table(rows=7)
    new = Table(dataclasses.replace(new.header, runtime_version="2.4.0"), new.rows)
    found = diff_tables(old, new)
    assert (len(found.added), len(found.removed)) == (2, 0)
    assert found.header == {"runtime_version": ("2.3.0", "2.4.0")}
    key = next(iter(old.rows))
    failed = diff_tables(old, changed(old, key, status="failed"))
    assert failed.status == {key: ("ok", "failed")}
    assert not failed.changed


def complete() -> Table:
    space, target = load_space("cifar_lite"), load_target("rpi4")
    table = make_table(digest=target.digest)
    row = next(iter(table.rows.values()))
    keys = [b.key for b in space.all_blocks((64, 96))]
    return Table(table.header, {k: dataclasses.replace(row, block=k) for k in keys})


def test_a_good_table_has_no_finding() -> None:
    assert check_table(complete(), load_space("cifar_lite"), load_target("rpi4")) == ()


def test_findings() -> None:
    space, target = load_space("cifar_lite"), load_target("rpi4")
    table = complete()
    first, second, third = list(table.rows)[:3]
    rows: dict[str, Row] = dict(table.rows)
    del rows[first]
    rows["stem-1x1x3-1x1x3-m0-k3-s1-r0-se0-relu-same"] = table.rows[second]
    rows[second] = dataclasses.replace(table.rows[second], status="failed")
    rows[third] = dataclasses.replace(table.rows[third], status="unstable")
    header = dataclasses.replace(table.header, target_digest="00" * 8, additivity=None)
    found = check_table(Table(header, rows), space, target)
    whats = [(f.severity, f.where, f.what.split(":")[0]) for f in found]
    assert ("error", first, "has no row") in whats
    assert ("error", second, "failed") in whats
    assert ("warning", third, "is unstable") in whats
    stale = "made for another version of the target file rpi4 (its digest differs)"
    assert ("error", "header", stale) in whats
    assert ("warning", "additivity", "no whole subnet was measured") in whats
    assert len(found) == 6


def test_a_doubtful_fit_is_a_warning() -> None:
    table = complete()
    fit = Additivity(-0.5, 1.9, 0.3, 30, 5.0, 0.9, 0.8, 10.0)
    doubtful = Table(dataclasses.replace(table.header, additivity=fit), table.rows)
    found = check_table(doubtful, load_space("cifar_lite"), load_target("rpi4"))
    assert [f.severity for f in found] == ["warning"] * 3
    text = " ".join(f.what for f in found)
    assert all(part in text for part in ("5.0% off", "1.90 times", "Spearman 0.900"))


def test_names_are_unique_over_all_spaces() -> None:
    for name in ("cifar_lite", "cifar_micro", "ofa_mbv3"):
        keys = [b.key for b in load_space(name).all_blocks()]
        assert len({lookup_name(k) for k in keys}) == len(keys)
    with pytest.raises(UsageError):
        lookup_name("what-is-this")


def test_exports_hold_the_same_numbers() -> None:
    table = complete()
    plain = json.loads(export_table(table, "json"))
    assert plain["header"]["space"] == "cifar_lite"
    assert {r["block"] for r in plain["rows"]} == set(table.rows)
    lookup = json.loads(export_table(table, "ofa-json"))
    assert parse_lookup(export_table(table, "ofa-yaml")) == lookup
    assert len(lookup) == len(table.rows)
    assert lookup[lookup_name(next(iter(table.rows)))]["mean"] == 0.1


def test_mbconv_names_are_the_official_ones() -> None:
    official = parse_lookup(material("ofa/note10/160_lookup_table.yaml").read_text())
    # the official table is of width 1.2: only the form can be compared
    form = {"-".join(p.split(":")[0] for p in n.split("-")) for n in official if "expanded" in n}
    ours = [lookup_name(b.key) for b in load_space("ofa_mbv3").all_blocks((160,))]
    assert {
        "-".join(p.split(":")[0] for p in n.split("-")) for n in ours if "expanded" in n
    } == form
