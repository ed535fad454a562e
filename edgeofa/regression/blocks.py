"""The blocks of a deployed artifact, each measured by itself, to say where time was lost.

The artifact is cut (see cuts.py) at activations through which everything flows, so a block is the
file's own operators and constants, not a rebuilt likeness: it is as slow as the file makes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeofa.devices.base import Device, Failure, Job, Latency
from edgeofa.graph.ir import Graph
from edgeofa.profiling.protocol import RULES, Rules, measure
from edgeofa.regression.cuts import CUTTABLE, Cuts, open_cuts
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.record import Moved

#: a blamed block has to move clearly, its share to the second digit is of no use
BLOCK_RULES = dataclasses.replace(RULES, budget_s=20.0, max_rounds=9)
#: blocks whose figures changed by less have not moved
_MOVED = 0.02


@dataclass(frozen=True)
class Segment:
    """A block: operators ``first`` to ``last`` (their places), between two activations."""

    name: str
    source: int
    sink: int
    first: int
    last: int


def segments(graph: Graph, cuts: Cuts, keys: Sequence[str] = ()) -> tuple[Segment, ...]:
    """The blocks of a network in order.

    Args:
        keys: the deployment's block keys; where their number fits they name the blocks.
    """
    waists = [p for p in _waists(graph) if cuts.has(graph.ops[p].output)]
    groups: list[tuple[str, int, int]] = []
    begin = 0
    for place in waists:
        name, last = _block_of(graph.ops[place].name), place == len(graph.ops) - 1
        following = "" if last else _block_of(graph.ops[place + 1].name)
        if last or following != name:
            groups.append((name, begin, place))
            begin = place + 1
    # pooling and classifier belong to the head, whose key names all of it
    while keys and len(groups) > len(keys):
        name, first, _ = groups[-2]
        groups[-2:] = [(name, first, groups[-1][2])]
    named = zip(groups, keys, strict=True) if len(keys) == len(groups) else None
    labels = [f"{i}: {k}" for i, (_, k) in enumerate(named)] if named else [g[0] for g in groups]
    source = graph.input
    found = []
    for label, (_, first, place) in zip(labels, groups, strict=True):
        sink = graph.ops[place].output
        found.append(Segment(label, source, sink, first, place))
        source = sink
    return tuple(found)


def segment_of(found: Sequence[Segment], place: int) -> str:
    """The name of the block that the operator at ``place`` is in."""
    return next(s.name for s in found if s.first <= place <= s.last)


def measure_blocks(
    device: Device,
    deployed: Deployed,
    graph: Graph,
    folder: Path,
    *,
    rules: Rules = BLOCK_RULES,
) -> dict[str, Latency]:
    """The latency of each block of a deployment; of each layer where the artifact tells its layers
    apart; empty where it neither does nor can be cut."""
    record = deployed.record
    if record.backend not in CUTTABLE:
        return _layers(device, deployed)
    cuts = open_cuts(deployed.artifact, record.backend, graph)
    found = segments(graph, cuts, [b.block for b in record.blocks])
    return measure_segments(
        device, cuts, found, folder, record.backend, record.threads, rules=rules
    )


def _layers(device: Device, deployed: Deployed) -> dict[str, Latency]:
    """Each layer's time in one run of the whole artifact."""
    record = deployed.record
    job = Job(deployed.artifact, record.backend, warmups=2, want_output=True)
    (outcome,) = device.run([job], threads=record.threads)
    if isinstance(outcome, Failure) or len(outcome.layers_ms) != len(record.layers):
        return {}
    spread = outcome.model_error
    return {
        layer.layer: Latency(ms, ms * (1 - spread), ms * (1 + spread), outcome.evidence)
        for layer, ms in zip(record.layers, outcome.layers_ms, strict=True)
    }


def moved_blocks(old: Mapping[str, float], new: Mapping[str, float]) -> tuple[Moved, ...]:
    """Blocks (by name, in ms) that take another time than before, the largest change first."""
    found = [
        Moved(block=name, old_ms=old[name], new_ms=ms)
        for name, ms in new.items()
        if name in old and abs(ms - old[name]) > _MOVED * old[name]
    ]
    return tuple(sorted(found, key=lambda m: -abs(m.new_ms - m.old_ms)))


def measure_segments(
    device: Device,
    cuts: Cuts,
    found: Sequence[Segment],
    folder: Path,
    backend: str,
    threads: int,
    *,
    rules: Rules = BLOCK_RULES,
) -> dict[str, Latency]:
    """Each block's latency, weights cold, as profiling measures blocks; absent where it failed."""
    paths = {}
    for number, segment in enumerate(found):
        path = folder / f"block-{number:04}"
        path.write_bytes(cuts.part(segment.source, segment.sink))
        paths[segment.name] = path
    largest = max(paths, key=lambda name: paths[name].stat().st_size)
    estimates = measure(
        device, paths, backend=backend, sentinel=largest, cold=True, threads=threads, rules=rules
    )
    return {
        name: Latency(e.ms, e.low_ms, e.high_ms, e.evidence)
        for name in paths
        if (e := estimates[name]).status != "failed"
    }


def _waists(graph: Graph) -> list[int]:
    """Places of operators behind which their output is the only activation still needed."""
    last_use = {number: place for place, op in enumerate(graph.ops) for number in op.inputs}
    live: set[int] = {graph.input}
    places = []
    for place, op in enumerate(graph.ops):
        live = {n for n in live if last_use.get(n, -1) > place} | {op.output}
        if live == {op.output}:
            places.append(place)
    return places


def _block_of(name: str) -> str:
    """``blocks.3`` of ``blocks.3.layers.0.conv``, ``5.mbconv`` of ``5.mbconv.expand``."""
    parts = name.split(".")
    numbered = len(parts) > 1 and (parts[0].isdigit() or parts[1].isdigit())
    return ".".join(parts[:2]) if numbered and parts[0] != "stem" else parts[0]
