"""One self-contained HTML page about a deployment: figures inline, no scripts, no requests."""

from __future__ import annotations

from importlib import resources

from edgeofa.deployment import Deployment


def deployment_html(deployment: Deployment) -> str:
    """The page as text; pictures are inline SVG."""
    import jinja2

    import edgeofa.report.plots as plots

    d = deployment
    figures = {
        "frontier": plots.frontier_svg(
            [(p.predicted_ms, p.accuracy) for p in d.frontier if p.accuracy is not None],
            pick=(d.predicted_ms, d.accuracy.predicted),
            budget_ms=d.budget.latency_ms,
        )
        if d.accuracy.predicted is not None and d.frontier
        else "",
        "blocks": plots.blocks_svg([(b.block, b.latency_ms) for b in d.blocks]),
        "agreement": plots.agreement_svg(
            [(a.predicted_ms, a.measured_ms) for a in d.attempts], evidence=d.evidence
        ),
    }
    template = (resources.files("edgeofa.report") / "deployment.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(d=d, figures=figures)
