"""Why a pipeline's queue is full, and what to do: the narrowest place between its senders and sink.

Looked for in the order in which an operator would: does it deliver at all, which bound is reached,
are all workers busy, may there be more, does the sink itself set the pace.

Pure functions over what processes report; they run in request threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.admin.figures import compact, duration, percent, size
from control.admin.pipelines import PipelineView
from control.ports.panels import Problem

# A batch of more than this share of what is admitted leaves no room for the next to fill.
WIDE = 0.5
# Batches of this share of their limit are full.
NEARLY = 0.9
# A queue that was fuller by this much is said to have been.
APART = 0.05


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """The narrowest place, in two sentences."""

    cause: str
    remedy: str


def refusal(pipeline: PipelineView, url: str) -> Problem | None:
    """Why senders are refused, if they are."""
    if not (pipeline.refusing or pipeline.refused_rate) or not pipeline.required:
        return None
    rate = pipeline.refused_rate
    what = f"{compact(rate)} requests/s" if rate else "new records"
    narrow = narrowest(pipeline)
    return Problem(
        severity="error",
        title=f"{pipeline.name} refuses {what}",
        cause=f"{_state_of_queue(pipeline.pressed, _peak(pipeline))} {narrow.cause}",
        remedy=narrow.remedy,
        url=url,
    )


def fullness(pipeline: PipelineView) -> str:
    """How full the queue is, by the bound that is reached first."""
    if pipeline.scarce_bytes:
        held, capacity = size(pipeline.held_bytes), size(pipeline.backlog_max_bytes)
        return f"{percent(pipeline.fill)} full ({held} of {capacity})"
    held, capacity = compact(pipeline.held_records), compact(pipeline.capacity_records)
    return f"{percent(pipeline.fill)} full ({held} of {capacity} records)"


def _peak(pipeline: PipelineView) -> str:
    """How full it was at most moments ago, where that is clearly more than now."""
    peak = pipeline.history.latest_peak if pipeline.history is not None else None
    if peak is None or peak < (pipeline.fill or 0.0) + APART:
        return ""
    return f", and was {percent(peak)} full moments ago"


def _state_of_queue(pipeline: PipelineView, peak: str) -> str:
    marks = pipeline.marks
    again = ""
    if marks.high is not None and marks.low is not None:
        again = (
            f" It refuses from {percent(marks.high)} on, and takes records again at "
            f"{percent(marks.low)}."
        )
    if not pipeline.refusing:
        if pipeline.waiting_tenants:
            return (
                f"Its queue is {fullness(pipeline)}; {_tenants(pipeline.waiting_tenants)} for "
                "room, so that no tenant gets more than its share: those beyond it are answered "
                "429."
            )
        return (
            f"Its queue is {fullness(pipeline)} now{peak}, when senders were answered 429.{again}"
            if peak
            else f"Its queue is {fullness(pipeline)} now; moments ago senders were answered 429."
        )
    answered = "senders are answered 429 with a Retry-After."
    return f"Its queue is {fullness(pipeline)}{peak}; {answered}{again}"


def _tenants(count: int) -> str:
    return "one tenant waits" if count == 1 else f"{count} tenants wait"


def narrowest(whole: PipelineView) -> Narrow:
    """What keeps the queue from emptying faster, in the process where it is fullest."""
    pipeline = whole.pressed
    stopped = _stopped(pipeline)
    if stopped is not None:
        return stopped
    pace = _pace(whole)
    if pipeline.workers and pipeline.busy_workers >= pipeline.workers:
        if pipeline.max_workers > pipeline.workers:
            return _growing(pipeline, pace)
        return _at_most(pipeline, pace, full_batches=_fills_batches(whole))
    if pipeline.write_limit and pipeline.busy_workers >= pipeline.write_limit:
        return Narrow(
            cause=f"The sink slows down when it gets more than {pipeline.write_limit} "
            f"batch{'es' if pipeline.write_limit != 1 else ''} at once, so no more are "
            f"sent at a time. {pace}".strip(),
            remedy="Find what bounds the sink (its processor, its disk, locks). More workers "
            "would not help; send less, or give it a store that takes more.",
        )
    admitted = (pipeline.marks.high or 1.0) * pipeline.capacity_records
    if pipeline.batch_limit > admitted * WIDE:
        return Narrow(
            cause=f"A batch closes at {compact(pipeline.batch_limit)} records, and the queue "
            f"refuses from {compact(admitted)} on: records wait for a batch to fill while workers "
            f"are idle. {pace}".strip(),
            remedy="Lower max_records (adaptive_max_records where the size finds itself), or raise "
            "capacity_records to several batches for each worker.",
        )
    return Narrow(
        cause=f"{pipeline.busy_workers} of its {pipeline.workers} "
        f"worker{'s are' if pipeline.workers != 1 else ' is'} busy: it empties, "
        f"or records come in bursts that are larger than its queue. {pace}".strip(),
        remedy=_more_room(pipeline) + " if bursts of this size are to be taken in.",
    )


def _stopped(pipeline: PipelineView) -> Narrow | None:
    """Nothing is delivered at all: the cause has a problem of its own."""
    if pipeline.misconfigured or pipeline.state == "misconfigured":
        return Narrow(
            cause="It delivers nothing, as its options are refused.",
            remedy="Correct the sink's options; processes take the change within seconds.",
        )
    if pipeline.paused:
        return Narrow(cause="It is paused and delivers nothing.", remedy="Resume the sink.")
    if pipeline.stuck:
        return Narrow(
            cause="Its workers hang in the sink and deliver nothing.",
            remedy="Find what the sink waits for, or restart the process: nothing is lost.",
        )
    if pipeline.broken:
        return Narrow(
            cause=f"Its breaker is {pipeline.breaker_word}: writes failed, and records wait.",
            remedy="Repair what the sink writes to, or correct its options; delivery goes on by "
            "itself.",
        )
    if pipeline.failing:
        return Narrow(
            cause="Its writes fail and are tried again.",
            remedy="Repair the sink, or correct its options here.",
        )
    return None


def _growing(pipeline: PipelineView, pace: str) -> Narrow:
    return Narrow(
        cause=f"All {pipeline.workers} workers are busy; the scaler adds more, up to "
        f"{pipeline.max_workers}. {pace}".strip(),
        remedy="Wait for it. If this comes back with every burst, raise min_workers, so that "
        "they are there before it.",
    )


def _at_most(pipeline: PipelineView, pace: str, *, full_batches: bool) -> Narrow:
    workers = pipeline.workers
    may_grow = full_batches and "max_records" not in pipeline.capped
    larger = (
        f"max_records, as every batch is full ({compact(pipeline.batch_limit)} records) "
        "and a write may cost the same whatever it holds"
    )
    if "max_workers" in pipeline.capped:
        return Narrow(
            cause="Its one worker is busy, and the sink takes no more than one write at a time. "
            f"{pace}".strip(),
            remedy=f"{f'Raise {larger}. ' if may_grow else ''}More workers would not help: send "
            "less, or give it a store that takes several writes at once. A larger queue only "
            "delays this.",
        )
    count = f"All {workers} workers are" if workers != 1 else "Its one worker is"
    return Narrow(
        cause=f"{count} busy, and there may be no more (max_workers). {pace}".strip(),
        remedy="Raise max_workers if the sink bears more writes at once"
        f"{f', or {larger}' if may_grow else ''}. Otherwise send less: a larger queue only delays "
        "this.",
    )


def _fills_batches(pipeline: PipelineView) -> bool:
    """Whether batches close because they hold all they may."""
    history = pipeline.history
    size = history.latest_per_batch if history is not None else None
    return size is not None and size >= NEARLY * pipeline.batch_limit


def _pace(pipeline: PipelineView) -> str:
    """What comes in against what is stored."""
    told = []
    if pipeline.in_rate is not None and pipeline.out_rate is not None:
        told.append(
            f"{compact(pipeline.in_rate)} records/s come in and {compact(pipeline.out_rate)} "
            "are stored"
        )
    if pipeline.p50:
        told.append(f"a write takes {duration(pipeline.p50)}")
    words = ", ".join(told)
    return f"{words[0].upper()}{words[1:]}." if words else ""


def _more_room(pipeline: PipelineView) -> str:
    return "Raise backlog_max_bytes" if pipeline.scarce_bytes else "Raise capacity_records"
