"""One probe by hand, from the form that describes it: before it is saved, and once it is.

The probe runs in the request's thread under the process's own address policy; `_permits` bounds
how many do so at once, so that trials of hanging services cannot take all threads.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from healthmon.admin import charts
from healthmon.admin.figures import latency_text
from healthmon.admin.targetform import TargetForm
from healthmon.probes.kind import ProbeKind, Result
from healthmon.probes.trial import try_probe
from sinks.optionform import OPTION

MOST_AT_ONCE = 4
LONGEST_S = 15.0
# What a trial needs to be right; a name may still be missing.
_NEEDED = ("kind", "address", "timeout_s", "__all__")

_permits = threading.BoundedSemaphore(MOST_AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a probe by hand found, as the page shows it."""

    result: Result | None = None
    problem: str = ""
    passive: bool = False
    slow: bool = False

    @property
    def outcome(self) -> str:
        if self.result is None:
            return ""
        return "degraded" if self.slow and self.result.outcome == "ok" else self.result.outcome

    @property
    def status(self) -> str:
        return {"ok": "up", "degraded": "degraded", "failed": "down"}.get(self.outcome, "unknown")

    @property
    def phases(self) -> list[charts.Phase]:
        return charts.phases(self.result, self.result.total_ms) if self.result is not None else []

    @property
    def bar(self) -> str:
        if self.result is None:
            return ""
        return charts.phase_bar(self.phases, longest_ms=self.result.total_ms)

    @property
    def words(self) -> str:
        """In a sentence, for a message."""
        if self.result is None:
            return self.problem
        took = f"in {latency_text(self.result.total_ms)}"
        if self.outcome == "ok":
            return f"it answered {took}"
        return f"{self.outcome} {took}: {self.result.error or 'slower than it should be'}"


def try_form(form: TargetForm) -> Trial:
    """Probe what the form describes; what is wrong with it is the answer, where it matters."""
    form.full_clean()
    wrong = [
        f"{form.fields[name].label or name if name in form.fields else ''}: {text}".lstrip(": ")
        for name, texts in form.errors.items()
        if name in _NEEDED or name.startswith(OPTION)
        for text in texts
    ]
    if wrong:
        return Trial(problem=" ".join(str(text) for text in wrong))
    cleaned = form.cleaned_data
    return run(
        form.probe_kind,
        form.kind_name,
        cleaned.get("address", ""),
        form.plain,
        timeout_s=cleaned.get("timeout_s") or LONGEST_S,
        degraded_after_ms=cleaned.get("degraded_after_ms"),
    )


def run(
    kind: ProbeKind | None,
    name: str,
    address: str,
    options: dict[str, Any],
    *,
    timeout_s: float,
    degraded_after_ms: float | None,
) -> Trial:
    if kind is None:
        return Trial(problem=f"The kind {name} is not available in this process.")
    if kind.probe is None:
        return Trial(passive=True)
    if not _permits.acquire(blocking=False):
        return Trial(problem="Several probes are being tried already; try again in a moment.")
    try:
        result = try_probe(name, address, options, min(timeout_s, LONGEST_S))
    except Exception as error:  # a third party's kind may fail in any way
        return Trial(problem=f"The probe itself failed: {type(error).__name__}: {error}"[:500])
    finally:
        _permits.release()
    slow = degraded_after_ms is not None and result.total_ms > degraded_after_ms
    return Trial(result=result, slow=slow)
