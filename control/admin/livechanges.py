"""What happened to a pipeline besides load: its settings were changed, processes came and went.

Each is a numbered line through the charts and an entry of the list below them. Of processes, only
those that had records of the pipeline. Installation-wide
settings come from the environment and a file, and are read when a process starts: its start is
where a change of those shows. Pure functions but for the question to the ports; request threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control.admin.links import link
from control.admin.overlays import Event
from control.admin.overview import Overview, ProcessView
from control.admin.pipelines import PipelineView, stats_pipelines
from control.ports.changes import changes_since

# The newest of a window; a process that restarts all the time must not fill the page.
MAX_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Happened:
    """One event; `keys` are the pipelines that it concerns."""

    at: datetime
    keys: frozenset[str]
    what: str
    who: str = ""
    url: str = ""

    @property
    def words(self) -> str:
        return f"{self.what} (by {self.who})" if self.who else self.what


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """An event as one pipeline's charts and list number it."""

    number: int
    event: Event
    happened: Happened


def of(overview: Overview, *, allows: Callable[[str], bool]) -> list[Happened]:
    """Everything that happened in the overview's window or after it, the oldest first."""
    since = overview.window.starts_at
    found = [
        Happened(
            at=change.at,
            keys=frozenset((change.key,)),
            what="; ".join(change.what),
            who=change.who,
            url=change.url,
        )
        for change in changes_since(since, allows=allows)
    ]
    for process in overview.processes:
        found += [one for one in _life(process) if one.at >= since]
    return sorted(found, key=lambda one: one.at)


def for_pipeline(found: list[Happened], key: str) -> list[Numbered]:
    """The newest that concern one pipeline, numbered from the oldest of them on."""
    own = [one for one in found if key in one.keys][-MAX_TOLD:]
    return [
        Numbered(
            number=number,
            happened=one,
            event=Event(at=one.at, number=str(number), words=one.words),
        )
        for number, one in enumerate(own, 1)
    ]


def _parts(stats: Any) -> list[PipelineView]:
    """The pipelines as one process tells of them."""
    parts = []
    for data in stats_pipelines(stats):
        part = PipelineView(key=str(data.get("key")), name=str(data.get("name")))
        part.add(data)
        parts.append(part)
    return parts


def _life(view: ProcessView) -> list[Happened]:
    process = view.process
    keys = frozenset(part.key for part in _parts(process.stats) if not part.idle)
    url = link("admin:control_process_change", process.pk)
    found = [
        Happened(at=process.started_at, keys=keys, what=f"{process} started", url=url),
    ]
    if not view.alive:
        ended = process.stopped_at or process.last_seen_at
        word = "stopped" if view.state == "stopped" else "fell silent"
        found.append(Happened(at=ended, keys=keys, what=f"{process} {word}", url=url))
    return found
