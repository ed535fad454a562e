"""One self-contained HTML page about a deployment: figures inline, no scripts, no requests."""

from __future__ import annotations

from importlib import resources

from edgeofa.deployment import Deployment


def deployment_html(deployment: Deployment) -> str:
    """The page as text; pictures are inline SVG."""
    import jinja2

    import edgeofa.report.plots as plots

    d = deployment
    figures = {"layers": "", "frontier": "", "blocks": "", "agreement": ""}
    timed = [(f"{x.layer}  {x.kind}", x.latency_ms) for x in d.layers if x.latency_ms is not None]
    if timed:
        figures["layers"] = plots.layers_svg(timed, evidence=d.evidence)
    choice = d.choice
    if choice is not None and d.predicted_ms is not None:
        if d.accuracy.predicted is not None and choice.frontier:
            figures["frontier"] = plots.frontier_svg(
                [(p.predicted_ms, p.accuracy) for p in choice.frontier if p.accuracy is not None],
                pick=(d.predicted_ms, d.accuracy.predicted),
                budget_ms=d.budget.latency_ms,
            )
        figures["blocks"] = plots.blocks_svg([(b.block, b.latency_ms) for b in d.blocks])
        figures["agreement"] = plots.agreement_svg(
            [(a.predicted_ms, a.measured_ms) for a in choice.attempts], evidence=d.evidence
        )
    template = (resources.files("edgeofa.report") / "deployment.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(d=d, figures=figures)
