"""Tables in the formats that other tools read.

``json`` is the whole table. ``ofa-json`` and ``ofa-yaml`` are look-up tables as once-for-all's
``LatencyTable`` reads them: block name to ``count``, ``mean`` and ``std`` in ms. MBConv and stem
have the official names; the head, which edgeofa measures whole (fused, pooled, classified), is
one entry ``Head-…`` where the official tables have four.
"""

from __future__ import annotations

import re
from typing import Literal

from edgeofa.errors import UsageError
from edgeofa.jsonio import dumps
from edgeofa.tables.table import Row, Table

ExportFormat = Literal["json", "ofa-json", "ofa-yaml"]
FORMATS: tuple[ExportFormat, ...] = ("json", "ofa-json", "ofa-yaml")

_KEY = re.compile(
    r"(?P<kind>stem|mbconv|head)-(?P<source>\d+x\d+x\d+)-(?P<sink>\d+x\d+x\d+)-m(?P<mid>\d+)"
    r"-k(?P<kernel>\d+)-s(?P<stride>\d+)-r(?P<skip>[01])-se(?P<se>[01])-(?P<activation>[a-z0-9]+)"
    r"-(?P<padding>[a-z]+)(?:-x(?P<mix>\d+))?"
)


def check_format(text: str) -> ExportFormat:
    """``text`` when it names a format, else a ``UsageError``."""
    for form in FORMATS:
        if text == form:
            return form
    raise UsageError(f"unknown format {text!r}", hint=f"one of {', '.join(FORMATS)}")


def export_table(table: Table, form: ExportFormat) -> str:
    """``table`` as text in the given format."""
    if form == "json":
        header = table.header
        return dumps({"header": header, "rows": [table.rows[k] for k in sorted(table.rows)]})
    entries = {
        lookup_name(key): _entry(table.rows[key])
        for key in sorted(table.rows)
        if table.rows[key].status != "failed"
    }
    if form == "ofa-json":
        return dumps(entries)
    return "\n".join(
        f"{name}:\n" + "\n".join(f"  {k}: {v}" for k, v in entry.items())
        for name, entry in sorted(entries.items())
    )


def lookup_name(key: str) -> str:
    """once-for-all's name of a block key; two keys never share one."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise UsageError(
            f"once-for-all has no name for {key[:80]!r}",
            hint="its look-up tables know the blocks of staged MBConv spaces; use --format json",
        )
    k = match.groupdict()
    ends = f"input:{k['source']}-output:{k['sink']}"
    if k["kind"] == "stem":
        name = f"Conv-{ends}"
    elif k["kind"] == "head":
        name = f"Head-{ends}-expand:{k['mid']}-mix:{k['mix'] or 0}"
    else:
        name = (
            f"expanded_conv-{ends}-expand:{k['mid']}-kernel:{k['kernel']}-stride:{k['stride']}"
            f"-idskip:{k['skip']}-se:{k['se']}-hs:{int(k['activation'] == 'hardswish')}"
        )
    return name


def _entry(row: Row) -> dict[str, int | float]:
    # a 95% interval is 3.92 standard errors wide
    std = (row.latency_high_ms - row.latency_low_ms) / 3.92
    return {"count": row.samples, "mean": row.latency_ms, "std": round(std, 6)}
