"""The short report that a deployment prints."""

from __future__ import annotations

from edgeofa.deployment import Deployment, TiesRecord


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def _ties(ties: TiesRecord) -> str:
    best = "" if ties.accuracy is None else f"{_percent(ties.accuracy)} predicted at "
    return (
        f"fastest of {ties.count} subnets within {100 * ties.tolerance:.2f} points, which the "
        f"accuracy model cannot tell apart; at most {best}{ties.predicted_ms:.2f} ms "
        "(--prefer accurate)"
    )


def deployment_text(d: Deployment) -> str:
    """A dozen lines: verdict, figures with their evidence, and where the files are."""
    low, high = d.interval_ms
    accuracy = "not claimed (random weights)"
    if d.accuracy.predicted is not None:
        accuracy = f"{_percent(d.accuracy.predicted)} predicted"
        if d.accuracy.predicted_error is not None:
            accuracy += f" (mean error {100 * d.accuracy.predicted_error:.2f} points)"
    if d.accuracy.measured is not None:
        accuracy = f"{_percent(d.accuracy.measured)} measured on {d.accuracy.images} images" + (
            f", {_percent(d.accuracy.predicted)} predicted"
            if d.accuracy.predicted is not None
            else ""
        )
    error = f"{d.output_error.max_relative:.1e} of the largest output"
    if d.output_error.max_steps is not None:
        error += f" ({d.output_error.max_steps} steps)"
    if d.output_error.sqnr_db is not None:
        error += f", int8 against float32 {d.output_error.sqnr_db:.1f} dB SQNR"
    rows = [
        (
            "verdict",
            f"{d.verdict}: {d.measured_ms:.2f} ms of {d.budget.latency_ms:g} ms"
            + (f", over: {', '.join(d.missed)}" if d.missed else "")
            + ("" if d.status == "ok" else f" ({d.status})"),
        ),
        ("device", d.device),
        ("subnet", d.subnet),
        ("compiled by", f"{d.backend}, {d.precision}, {d.threads} thread(s)"),
        (
            "latency",
            f"{d.measured_ms:.2f} ms {d.evidence} (95%: {low:.2f} to {high:.2f}), "
            f"{d.predicted_ms:.2f} ms predicted from the table",
        ),
        ("accuracy", accuracy),
    ]
    if d.ties is not None:
        rows.append(("ties", _ties(d.ties)))
    if d.energy_mj is not None and d.energy_interval_mj is not None:
        low, high = d.energy_interval_mj
        rows.append(
            ("energy", f"{d.energy_mj:.1f} mJ gross, modelled (95%: {low:.1f} to {high:.1f})")
        )
    rows += [
        (
            "memory",
            f"{d.weight_bytes / 1024:.0f} KB weights, "
            f"{d.peak_bytes / 1024:.0f} KB peak activations (planned)",
        ),
        ("outputs", f"against the reference: {error}"),
        ("artifact", d.artifact.path),
    ]
    return "\n".join(f"{name:<12} {text}" for name, text in rows)
