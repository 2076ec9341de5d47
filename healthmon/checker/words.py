"""Results as a terminal shows them."""

from __future__ import annotations

from typing import Any

from healthmon.probes.kind import Result

_PHASES = ("dns", "connect", "tls", "first_byte")


def line(name: str, result: Result) -> str:
    """One result in one line."""
    phases = [
        f"{phase.replace('_', ' ')} {value:.1f}"
        for phase in _PHASES
        if (value := getattr(result, f"{phase}_ms")) >= 0
    ]
    parts = [f"{name}: {result.outcome}", f"{result.total_ms:.1f} ms"]
    if phases:
        parts.append(f"({', '.join(phases)})")
    if result.code:
        parts.append(f"code {result.code}")
    if result.address:
        parts.append(f"at {result.address}")
    if result.error:
        parts.append(f"- {result.error}")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(parts))


def as_json(name: str, result: Result) -> dict[str, Any]:
    """One result for a program; phases that did not happen are left out."""
    found: dict[str, Any] = {
        "target": name,
        "outcome": result.outcome,
        "total_ms": round(result.total_ms, 3),
    }
    for phase in _PHASES:
        if (value := getattr(result, f"{phase}_ms")) >= 0:
            found[f"{phase}_ms"] = round(value, 3)
    for field in ("code", "address", "error", "cert_expires_us"):
        if value := getattr(result, field):
            found[field] = value
    return found
