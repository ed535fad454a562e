"""What people and machines read of a test run: text, JUnit XML, Markdown, a page; exit codes."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from edgeofa.errors import DeviceError, RegressionFound, UnstableMeasurement
from edgeofa.paths import write_atomic
from edgeofa.regression.baseline import Baseline
from edgeofa.regression.diff import BaselineDiff
from edgeofa.regression.history import History
from edgeofa.regression.record import Check, DeploymentTest, TestReport

#: where GitHub's runners want a job's Markdown
_GITHUB = "GITHUB_STEP_SUMMARY"
_MARKS = {"passed": "✅", "failed": "❌", "unstable": "⚠️", "error": "💥", "skipped": "⚪"}
#: XML has no way to write these
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def report_text(report: TestReport) -> str:
    """A few lines for each deployment, and the verdict."""
    lines: list[str] = []
    for test in report.deployments:
        lines.append(f"{test.deployment} on {test.device} ({test.evidence}), {test.runtime}")
        lines += [f"  {c.status:<9} {c.name:<11} {c.summary}" for c in test.checks]
        if test.cause:
            lines.append(f"  {'cause':<9} {test.cause}")
        lines += [f"  {'changed':<9} {change}" for change in test.changes]
    lines.append(f"{report.status} in {sum(t.seconds for t in report.deployments):.1f} s")
    return "\n".join(lines)


def raise_for(report: TestReport) -> None:
    """``DeviceError``, ``RegressionFound`` or ``UnstableMeasurement``, unless all passed."""
    for status, kind, hint in (
        ("error", DeviceError, "edgeofa doctor"),
        ("failed", RegressionFound, "if it is intended: edgeofa baseline accept"),
        ("unstable", UnstableMeasurement, "stop other programs on the device, then test again"),
    ):
        worst = [(t, c) for t in report.deployments for c in t.checks if c.status == status]
        if worst:
            test, check = worst[0]
            raise kind(
                f"{check.name} {status}: {check.summary}"
                + (f" (and {len(worst) - 1} more checks)" if len(worst) > 1 else ""),
                where=f"{test.deployment} on {test.device}",
                hint=hint,
            )


def write_reports(
    report: TestReport,
    *,
    junit: Path | None = None,
    html: Path | None = None,
    summary: Path | None = None,
    report_file: Path | None = None,
) -> None:
    """Write what was asked for, each file whole. The Markdown is appended, as GitHub wants it."""
    if junit is not None:
        write_atomic(junit, junit_xml(report))
    if html is not None:
        write_atomic(html, report_html(report))
    if report_file is not None:
        write_atomic(report_file, report.model_dump_json(indent=2) + "\n")
    place = summary or (Path(os.environ[_GITHUB]) if os.environ.get(_GITHUB) else None)
    if place is not None:
        with place.open("a", encoding="utf-8") as file:
            file.write(markdown(report) + "\n")


def junit_xml(report: TestReport) -> str:
    """A test suite for each deployment, a test case for each check."""
    suites = ElementTree.Element("testsuites", name="edgeofa")
    for test in report.deployments:
        counts = {s: sum(c.status == s for c in test.checks) for s in _MARKS}
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=_xml(f"{test.deployment} on {test.device}"),
            tests=str(len(test.checks)),
            failures=str(counts["failed"]),
            errors=str(counts["error"] + counts["unstable"]),
            skipped=str(counts["skipped"]),
            time=f"{test.seconds:.3f}",
        )
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in (("runtime", test.runtime), *test.device_identity.items()):
            ElementTree.SubElement(properties, "property", name=_xml(name), value=_xml(value))
        for check in test.checks:
            _case(suite, test, check)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, test: DeploymentTest, check: Check) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        name=_xml(check.name),
        classname=_xml(f"{test.target}.{test.deployment}"),
        time=f"{check.seconds:.3f}",
    )
    kinds = {"failed": "failure", "error": "error", "unstable": "error", "skipped": "skipped"}
    if check.status in kinds:
        result = ElementTree.SubElement(case, kinds[check.status], message=_xml(check.summary))
        result.text = _xml("\n".join([test.cause, *test.changes]).strip())
    else:
        ElementTree.SubElement(case, "system-out").text = _xml(check.summary)


def _xml(text: str) -> str:
    return _CONTROL.sub("?", text)


def markdown(report: TestReport) -> str:
    """A table for each deployment."""
    lines = [f"## edgeofa test: {_MARKS[report.status]} {report.status}", ""]
    for test in report.deployments:
        lines += [
            f"### {_cell(test.deployment)} on {_cell(test.device)}",
            "",
            f"{_cell(test.runtime)}, {test.evidence}; baseline: "
            f"{_cell(test.baseline) if test.baseline else 'none yet'}",
            "",
            "| | check | result |",
            "|---|---|---|",
        ]
        lines += [f"| {_MARKS[c.status]} | {c.name} | {_cell(c.summary)} |" for c in test.checks]
        moved = [m for c in test.checks for m in c.blocks]
        if moved:
            lines += ["", "| block | baseline, ms | now, ms |", "|---|---|---|"]
            lines += [f"| {_cell(m.block)} | {m.old_ms:.3f} | {m.new_ms:.3f} |" for m in moved]
        if test.cause:
            lines += ["", f"Likely cause: {_cell(test.cause)}."]
        if test.changes:
            lines += ["", "Changed since the baseline:", ""]
            lines += [f"- {_cell(change)}" for change in test.changes]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that stays inside its cell, whatever a device called itself."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def report_html(report: TestReport) -> str:
    """One self-contained page: pictures inline, no scripts, no requests."""
    import jinja2

    from edgeofa.regression.plots import blocks_svg, history_svg

    figures = [
        {
            "history": history_svg(test.history) if test.history else "",
            "blocks": blocks_svg(moved) if moved else "",
        }
        for test in report.deployments
        for moved in [[m for c in test.checks for m in c.blocks]]
    ]
    template = (resources.files("edgeofa.regression") / "report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        r=report, tests=list(zip(report.deployments, figures, strict=True)), marks=_MARKS
    )


def baseline_text(path: Path, baseline: Baseline) -> str:
    """What was accepted, and where it lies."""
    latency = baseline.latency
    return (
        f"{baseline.deployment} on {baseline.device}: {latency.ms:.3f} ms {baseline.evidence} "
        f"({latency.low_ms:.3f} to {latency.high_ms:.3f}), gate "
        f"{100 * baseline.gate.relative:.1f}% and {baseline.gate.absolute_ms:g} ms from "
        f"{baseline.gate.runs} A/A runs, {baseline.backend} {baseline.runtime}\n  {path}"
    )


def difference_text(found: BaselineDiff) -> str:
    """Both sides, and everything that differs."""
    lines = [
        f"old  {found.old}: {found.old_ms:.3f} ms",
        f"new  {found.new}: {found.new_ms:.3f} ms",
        f"latency {100 * (found.ratio - 1):+.1f}% ({found.change})",
        f"outputs {'are the same bits' if found.same_outputs else 'differ'}",
    ]
    lines += [f"block {m.block}: {m.old_ms:.3f} → {m.new_ms:.3f} ms" for m in found.blocks]
    return "\n".join([*lines, *found.changes])


def history_text(found: tuple[History, ...]) -> str:
    """One line for each accepted figure."""
    lines = []
    for history in found:
        lines.append(f"{history.deployment} on {history.target}")
        lines += [
            f"  {p.date}  {p.latency_ms:9.3f} ms {p.evidence:<9} {p.runtime:<12} {p.artifact[:12]}"
            for p in history.points
        ]
    return "\n".join(lines)
