"""Another accuracy model from subnets that were measured already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeofa.accuracy.fit import fit_accuracy
from edgeofa.accuracy.fit_pairwise import fit_pairwise
from edgeofa.accuracy.model import load_accuracy
from edgeofa.elastic.bundles import bundle_dir
from edgeofa.errors import UsageError
from edgeofa.paths import write_atomic
from edgeofa.spaces.space import Space

__all__ = ["Refit", "refit"]


@dataclass(frozen=True)
class Refit:
    """``points`` (mean absolute error) and ``tau`` (Kendall's) are ten-fold cross-validated."""

    file: Path
    kind: str
    pairs: int
    images: int
    points: float
    tau: float


def refit(
    space: Space, kind: str, out: Path, journal: Path | None, images: int | None, seed: int = 0
) -> Refit:
    """Fits an ``additive`` or a ``pairwise`` model and writes it.

    Args:
        journal: of :func:`edgeofa.accuracy.measure.measure_subnets`, each subnet on so many
            ``images``; by default the pairs of the space's bundle.

    Raises:
        UsageError: another kind, a journal without the number of its images, or too few pairs.
    """
    if kind not in ("additive", "pairwise"):
        raise UsageError(f"no kind of accuracy model: {kind[:40]!r}", hint="additive or pairwise")
    if journal is None:
        content = load_accuracy(bundle_dir(space.name) / "accuracy.json", space).content
        pairs = [(space.parse(p.subnet), p.accuracy) for p in content.pairs]
        images, evidence = content.images, content.evidence
    else:
        from edgeofa.accuracy.measure import read_journal

        if images is None:
            raise UsageError("on how many images was each measured?", hint="--images 1500")
        pairs = list(read_journal(journal, space).items())
        evidence = f"measured on {images} images"
    if kind == "pairwise":
        fitted = fit_pairwise(space, pairs, images, evidence, seed)
        text, points, tau = fitted.model.content.model_dump_json(), fitted.points, fitted.tau
    else:
        model = fit_accuracy(space, pairs, images, evidence, seed).content
        text, quality = model.model_dump_json(), model.cross_validation
        points, tau = quality.rerank_points, quality.rerank_tau
    write_atomic(out, text + "\n")
    return Refit(out, kind, len(pairs), images, points, tau)
