"""The short report that a deployment prints."""

from __future__ import annotations

from edgeofa.deployment import Deployment, TiesRecord

#: layers that are named as the slowest
_SLOWEST = 3


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
    rows = [
        ("verdict", _verdict(d)),
        ("device", d.device),
        ("subnet" if d.model is None else "model", d.network),
        ("compiled by", f"{d.backend}, {d.precision}, {d.threads} thread(s)"),
        *_others(d),
        (
            "latency",
            f"{d.measured_ms:.2f} ms {d.evidence} (95%: {low:.2f} to {high:.2f}), "
            + (
                "not predicted: no table knows this network"
                if d.predicted_ms is None
                else f"{d.predicted_ms:.2f} ms predicted from the table"
            ),
        ),
        *_slowest(d),
        ("accuracy", _accuracy(d)),
    ]
    if d.choice is not None and d.choice.ties is not None:
        rows.append(("ties", _ties(d.choice.ties)))
    if d.energy_mj is not None and d.energy_interval_mj is not None:
        low, high = d.energy_interval_mj
        rows.append(
            ("energy", f"{d.energy_mj:.1f} mJ gross, modelled (95%: {low:.1f} to {high:.1f})")
        )
    rows += [
        ("memory", _memory(d)),
        *_image(d),
        ("outputs", f"against the reference: {_output_error(d)}"),
        ("artifact", d.artifact.path),
    ]
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _verdict(d: Deployment) -> str:
    text = f"{d.verdict}: {d.measured_ms:.2f} ms"
    if d.verdict == "unbudgeted":
        text = f"no budget was asked for: {d.measured_ms:.2f} ms"
    elif d.budget.latency_ms is not None:
        text += f" of {d.budget.latency_ms:g} ms"
    if d.missed:
        text += f", over: {', '.join(d.missed)}"
    return text if d.status == "ok" else f"{text} ({d.status})"


def _others(d: Deployment) -> list[tuple[str, str]]:
    """The back ends that were not taken."""
    others = [c for c in d.candidates if c.backend != d.backend]
    if not others:
        return []
    texts = [
        f"{c.backend} {c.measured_ms:.2f} ms"
        if c.measured_ms is not None
        else f"{c.backend} not ({(c.failure or '').splitlines()[0][:80]})"
        for c in others
    ]
    return [("tried too", ", ".join(texts))]


def _slowest(d: Deployment) -> list[tuple[str, str]]:
    """The layers that take most, where the device tells layers apart."""
    timed = [x for x in d.layers if x.latency_ms is not None]
    slowest = sorted(timed, key=lambda x: -(x.latency_ms or 0.0))[:_SLOWEST]
    if not slowest:
        return []
    texts = [f"{x.layer} {x.latency_ms:.2f} ms" for x in slowest]
    return [("slowest", f"of {len(timed)} layers: {', '.join(texts)}")]


def _accuracy(d: Deployment) -> str:
    found = d.accuracy
    if found.measured is not None:
        text = f"{_percent(found.measured)} measured on {found.images} images"
        return text + (
            f", {_percent(found.predicted)} predicted" if found.predicted is not None else ""
        )
    if found.predicted is not None:
        text = f"{_percent(found.predicted)} predicted"
        if found.predicted_error is not None:
            text += f" (mean error {100 * found.predicted_error:.2f} points)"
        return text
    if d.model is not None:
        return "not known (--data with labels measures it)"
    return "not claimed (random weights)"


def _memory(d: Deployment) -> str:
    text = (
        f"{d.weight_bytes / 1024:.0f} KB weights, "
        f"{d.peak_bytes / 1024:.0f} KB peak activations (planned)"
    )
    if d.peak_layer is not None:
        text += f", most at {d.peak_layer.layer} ({d.peak_layer.kind})"
    if d.memory.arena_bytes is not None:
        text += f"; on the device {d.memory.arena_bytes} B of it were touched"
    if d.memory.stack_bytes is not None:
        text += f", and {d.memory.stack_bytes} B of stack"
    return text


def _image(d: Deployment) -> list[tuple[str, str]]:
    """What a microcontroller's whole firmware takes of the board."""
    m = d.memory
    parts = [
        f"{used} B of {total / 1024:g} KB {name}"
        for name, used, total in (
            ("flash", m.flash_bytes, m.flash_total_bytes),
            ("RAM", m.ram_bytes, m.ram_total_bytes),
        )
        if used is not None and total is not None
    ]
    return [("firmware", ", ".join(parts))] if parts else []


def _output_error(d: Deployment) -> str:
    error = d.output_error
    text = f"{error.max_relative:.1e} of the largest output"
    if error.max_steps is not None:
        text += f" ({error.max_steps} steps)"
    if error.images > 1:
        text += f" on {error.images} inputs"
    if error.sqnr_db is not None:
        text += f", int8 against float32 {error.sqnr_db:.1f} dB SQNR"
    return text
