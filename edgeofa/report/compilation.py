"""What ``edgeofa compile`` prints."""

from __future__ import annotations

from edgeofa.compilation import Compiled


def compiled_text(compiled: Compiled) -> str:
    """The sizes of a compiled network and where its sources are."""
    peak = compiled.peak_layer
    rows = {
        "network": f"{compiled.network} ({compiled.macs / 1e6:.2f} M MAC)",
        "target": compiled.target,
        "flash": f"{compiled.weight_bytes} bytes of constants",
        "memory": f"{compiled.arena_bytes} bytes, most at {peak.name} ({peak.kind})",
        "sources": f"{compiled.folder} ({len(compiled.files)} files)",
    }
    return "\n".join(f"{name:<12} {value}" for name, value in rows.items())
