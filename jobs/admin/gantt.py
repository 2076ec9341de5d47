"""A job's time as bars: when it waited, its attempts, its steps.  Pure functions.

Drawn as SVG that stretches to any width, a row each; the words stand in HTML beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from control.admin.figures import duration
from control.admin.inert import one_line
from jobs.admin import held
from jobs.states import DEAD, QUEUED, RUNNING, SCHEDULED, STEP_FAILED, STEP_RETRYING, SUCCEEDED
from jobs.store.models import Job, JobEvent, JobStep

WIDTH, HEIGHT = 1000.0, 12
LEAST = 2.0  # units: what took no time is seen all the same
BARS_SHOWN = 60
FAILED = "failed"  # an attempt after which a step is to be called again, or none is left
# As jobs.execution.outcome writes it: “step a: why; step b: why”.
_STEP = re.compile(r"(?:^|; )(?:last, )?step ([a-z0-9][a-z0-9\-_.]{0,62}): ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `start` to `end`, in seconds since the job was submitted."""

    start: float
    end: float
    kind: str
    words: str

    @property
    def length(self) -> float:
        return max(0.0, self.end - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the chart."""

    label: str
    note: str
    spans: Sequence[Span]
    bar: SafeString


def spans_of(job: Job, events: Sequence[JobEvent], now: datetime) -> list[Span]:
    """What the job did, one state after another, from its events."""
    found = []
    for index, event in enumerate(events):
        if event.state not in (SCHEDULED, QUEUED, RUNNING):
            continue
        following = events[index + 1] if index + 1 < len(events) else None
        if following is not None and following.state == event.state:
            # Something was said of it; it stayed what it was.
            following = next((one for one in events[index + 1 :] if one.state != event.state), None)
            if index and events[index - 1].state == event.state:
                continue
        elif index and events[index - 1].state == event.state:
            continue
        end = following.at if following is not None else job.finished_at or now
        words = f"{event.state} for {duration((end - event.at).total_seconds())}"
        kind = event.state
        if event.state == RUNNING:
            words = f"attempt {event.attempt or event.claim}: {words}"
            if following is not None and _failures(following):
                kind, words = FAILED, f"{words}; it failed"
        found.append(
            Span(
                start=_since(job, event.at),
                end=max(_since(job, event.at), _since(job, end)),
                kind=kind,
                words=words,
            )
        )
    return found


def _failures(ended: JobEvent) -> dict[str, str]:
    """The steps whose calls failed in the attempt that ended so, and how; not those held back."""
    if ended.state not in (SCHEDULED, QUEUED, DEAD):
        return {}
    parts = _STEP.split(ended.text)
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: text for name, text in told.items() if held.told(text) is None}


def _moves(events: Sequence[JobEvent]) -> list[JobEvent]:
    """Without what was only said of the job while it stayed what it was."""
    kept: list[JobEvent] = []
    for event in events:
        if not kept or event.state != kept[-1].state:
            kept.append(event)
    return kept


def failed_spans(job: Job, step: JobStep, events: Sequence[JobEvent]) -> list[Span]:
    """The attempts in which the step failed; its own record tells of the last call alone."""
    found = []
    for began, ended in pairwise(_moves(events)):
        if began.state != RUNNING or step.name not in (failures := _failures(ended)):
            continue
        if step.started_at is not None and began.at <= step.started_at <= ended.at:
            continue  # its record tells of this call
        text = one_line(failures[step.name], limit=160)
        found.append(
            Span(
                start=_since(job, began.at),
                end=max(_since(job, began.at), _since(job, ended.at)),
                kind=f"step-{STEP_FAILED}",
                words=f"{step.name}: failed in attempt {began.attempt or began.claim}: {text}",
            )
        )
    return found


def step_spans(job: Job, step: JobStep, now: datetime) -> list[Span]:
    if step.started_at is None or (step.state == STEP_RETRYING and held.told(step.error)):
        return []  # it was not called
    end = step.finished_at or (now if step.state == RUNNING else step.started_at)
    length = max(0.0, (end - step.started_at).total_seconds())
    start = _since(job, step.started_at)
    return [
        Span(
            start=start,
            end=start + length,
            kind=f"step-{step.state}",
            words=f"{step.name}: {step.state}, {duration(length)}",
        )
    ]


def chart(
    job: Job, events: Sequence[JobEvent], steps: Iterable[JobStep], now: datetime
) -> list[Row]:
    """The job's own row, then its steps'; empty while nothing has happened."""
    own = spans_of(job, events, now)[-BARS_SHOWN:]
    named = [
        (step, [*failed_spans(job, step, events)[-BARS_SHOWN:], *step_spans(job, step, now)])
        for step in steps
    ]
    every = [*own, *(span for _, spans in named for span in spans)]
    if not every:
        return []
    starts = min(span.start for span in every)
    ends = max(max(span.end for span in every), starts + 0.001)
    ran = sum(span.length for span in own if span.kind in (RUNNING, FAILED))
    waited = sum(span.length for span in own if span.kind not in (RUNNING, FAILED))
    rows = [
        Row(
            label="The job",
            note=f"waited {duration(waited)}, ran {duration(ran)}",
            spans=own,
            bar=_bar("The job", own, starts, ends),
        )
    ]
    for step, spans in named:
        took = step.duration_ms
        note = duration(took / 1000) if took is not None else ""
        if step.attempts > 1:
            note = f"last {note}, {step.attempts} attempts" if note else f"{step.attempts} attempts"
        rows.append(
            Row(label=step.name, note=note, spans=spans, bar=_bar(step.name, spans, starts, ends))
        )
    return rows


def axis(rows: Sequence[Row]) -> tuple[str, str]:
    """What stands at the two ends of the chart."""
    spans = [span for row in rows for span in row.spans]
    if not spans:
        return ("", "")
    starts, ends = min(span.start for span in spans), max(span.end for span in spans)
    first = "submitted" if starts <= 0 else f"+{duration(starts)}"
    return (first, f"+{duration(ends)}")


def _bar(label: str, spans: Sequence[Span], starts: float, ends: float) -> SafeString:
    scale = WIDTH / (ends - starts)
    drawn = []
    for span in spans:
        width = max(LEAST, span.length * scale)
        left = min((span.start - starts) * scale, WIDTH - width)
        drawn.append((f"{left:.1f}", f"{width:.1f}", _css(span.kind), span.words))
    return format_html(
        '<svg class="gantt" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>',
        f"{WIDTH:.0f}",
        HEIGHT,
        "; ".join(span.words for span in spans) or f"{label}: not begun",
        format_html_join(
            "",
            '<rect x="{}" width="{}" y="1" height="10" class="{}"><title>{}</title></rect>',
            drawn,
        ),
    )


def _css(kind: str) -> str:
    return f"g-{kind}" if kind != SUCCEEDED else "g-succeeded"


def _since(job: Job, at: datetime) -> float:
    return (at - job.created_at).total_seconds()
