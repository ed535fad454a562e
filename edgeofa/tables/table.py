"""The latency and energy table of one target, space, back end and precision.

On disk: ``<target>/<space>-<backend>-<precision>.csv``, one row a block, sorted by key, and beside
it a ``.toml`` header with everything needed to trust and reproduce it. Reading and writing is in
``store``; the additivity fit in ``additivity``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from edgeofa.devices.base import Evidence
from edgeofa.errors import MissingMaterial
from edgeofa.graph.ir import DType
from edgeofa.spaces.space import Block

#: of the files that tables are written to
SCHEMA_VERSION = 2
#: how many of the blocks that a table lacks a message names
_NAMED = 4

Status = Literal["ok", "unstable", "throttled", "failed"]


@dataclass(frozen=True)
class Row:
    """One block, one image: what it adds to a network.

    The latency is that of the block alone with its weights out of the caches, less the latency of
    an empty network (``Header.overhead_ms``), which a network of many blocks pays once. Energy is
    gross (the board's idle power included). A failed block has latencies of 0 and no energy.
    """

    block: str
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    energy_mj: float | None
    energy_low_mj: float | None
    energy_high_mj: float | None
    peak_bytes: int
    weight_bytes: int
    samples: int
    rounds: int
    evidence: Evidence
    status: Status
    #: machine code that the block takes beside its weights; None where nobody knows
    code_bytes: int | None = None

    @property
    def flash_bytes(self) -> int:
        """Weights, and code where it is known."""
        return self.weight_bytes + (self.code_bytes or 0)


@dataclass(frozen=True)
class Additivity:
    """``whole = a + b * sum of blocks``, fitted on whole random subnets.

    ``q95_ms`` is the 95% quantile of ``measured - predicted`` (never below 0) and ``q95_percent``
    the same relative to the prediction. The solver plans with the relative one (``plan_ms``,
    ``sum_budget_ms``): residuals grow with the network, and a table spans networks of very
    different size. All error figures are leave-one-out.
    """

    a_ms: float
    b: float
    q95_ms: float
    subnets: int
    mape_percent: float
    spearman: float
    within_10_percent: float
    q95_percent: float = 0.0

    def plan_ms(self, sum_ms: float) -> float:
        """Latency to plan with: 95% of whole networks with this sum of blocks are faster."""
        return (self.a_ms + self.b * sum_ms) * (1 + self.q95_percent / 100)

    def sum_budget_ms(self, budget_ms: float) -> float:
        """The largest sum of blocks whose ``plan_ms`` is within ``budget_ms``; may be negative."""
        return (budget_ms / (1 + self.q95_percent / 100) - self.a_ms) / self.b


@dataclass(frozen=True)
class Header:
    """What a table is about and how it came to be."""

    target: str
    target_digest: str
    space: str
    backend: str
    precision: DType
    threads: int
    evidence: Evidence
    runtime: str
    runtime_version: str
    runtime_digest: str
    device: Mapping[str, str]
    protocol_version: int
    seed: int
    date: str
    edgeofa_version: str
    resolutions: tuple[int, ...]
    additivity: Additivity | None
    #: latency of a network without operators: what an invoke costs whatever the network
    overhead_ms: float = 0.0
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Table:
    """Rows by block key, and the header."""

    header: Header
    rows: Mapping[str, Row]

    @property
    def name(self) -> str:
        h = self.header
        threads = "" if h.threads == 1 else f"-{h.threads}threads"
        return f"{h.space}-{h.backend}-{h.precision}{threads}"

    def __contains__(self, block: Block) -> bool:
        return block.key in self.rows

    def row(self, block: Block) -> Row:
        """The usable row of a block; raises ``MissingMaterial`` with the way to get it."""
        return self.rows_of((block,))[block]

    def rows_of(self, blocks: Iterable[Block], *, source: str | None = None) -> dict[Block, Row]:
        """The usable rows of blocks; ``MissingMaterial`` names those that there are not, and the
        command that profiles just these. ``source`` is what ``--space`` finds the space by there,
        by default its name."""
        found, lacking = {}, []
        for block in blocks:
            row = self.rows.get(block.key)
            if row is None or row.status == "failed":
                lacking.append(block.key)
            else:
                found[block] = row
        if lacking:
            raise self._lacks(sorted(lacking), source or self.header.space)
        return found

    def _lacks(self, keys: list[str], space: str) -> MissingMaterial:
        h = self.header
        failed = sum(key in self.rows for key in keys)
        state = "failed" if failed == len(keys) else "has no row" if len(keys) == 1 else ""
        what = f"block {keys[0]} {state}"
        if len(keys) > 1:
            named = ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
            what = f"{len(keys)} blocks have no usable row: {named}"
        threads = "" if h.threads == 1 else f" --threads {h.threads}"
        return MissingMaterial(
            what,
            where=f"table {h.target}/{self.name}",
            hint=f"edgeofa profile --target {h.target} --space {space} --backend {h.backend} "
            f"--precision {h.precision}{threads} --missing",
        )

    @cached_property
    def fit(self) -> Additivity:
        """The additivity fit; the identity when no whole subnet was measured."""
        return self.header.additivity or Additivity(0.0, 1.0, 0.0, 0, 0.0, 1.0, 1.0)

    @cached_property
    def has_code(self) -> bool:
        """Whether any row knows its machine code."""
        return any(row.code_bytes is not None for row in self.rows.values())

    def code_bytes(self, blocks: Iterable[Block]) -> int | None:
        """Machine code of a network of these blocks; None where the table does not know it. Blocks
        of equal shapes share code in one image, so it is an upper bound."""
        if not self.has_code:
            return None
        return sum(self.rows[block.key].code_bytes or 0 for block in blocks)

    def sum_ms(self, blocks: Iterable[Block]) -> float:
        return sum(self.row(b).latency_ms for b in blocks)

    def predict_ms(self, blocks: Iterable[Block]) -> float:
        """Latency of a whole network, additivity fit applied, no safety margin."""
        return self.fit.a_ms + self.fit.b * self.sum_ms(blocks)
