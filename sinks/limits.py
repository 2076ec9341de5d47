"""What a sink bears at most of its pipeline's settings, whoever set them.

Pure functions; called by the control thread and by requests of the admin.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.settings import PipelineSettings
from sinks.base import BaseSink


def within_limits(wanted: PipelineSettings, sink: BaseSink[Any]) -> PipelineSettings:
    """The settings as far as the sink bears them."""
    if not sink.supports_concurrent_writes:
        wanted = dataclasses.replace(wanted, min_workers=1, max_workers=1)
    if sink.max_batch_records is not None:
        most = sink.max_batch_records
        wanted = dataclasses.replace(
            wanted,
            max_records=min(wanted.max_records, most),
            adaptive=wanted.adaptive.within(most),
        )
    return wanted


def capped_by(sink: BaseSink[Any], settings: PipelineSettings) -> frozenset[str]:
    """The settings that are at what the sink bears: more of them would not help."""
    capped = set()
    if not sink.supports_concurrent_writes:
        capped.add("max_workers")
    if sink.max_batch_records is not None and settings.max_records >= sink.max_batch_records:
        capped.add("max_records")
    return frozenset(capped)


def without_effect(sink: BaseSink[Any], given: dict[str, Any]) -> dict[str, str]:
    """Of what was set for a sink, what goes beyond what it bears; each with the reason."""
    found = {}
    if not sink.supports_concurrent_writes:
        for name in ("min_workers", "max_workers"):
            if (given.get(name) or 1) > 1:
                found[name] = (
                    f"{given[name]} would have no effect: this sink takes one write at a time, "
                    "and has one worker. (SQLite has one writer.) Leave it empty."
                )
    most = sink.max_batch_records
    if most is not None and (given.get("max_records") or 0) > most:
        found["max_records"] = (
            f"{given['max_records']} would have no effect: this sink takes {most} records at "
            "once, at most."
        )
    return found
