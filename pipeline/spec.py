"""What an engine is told about one sink; made from configuration, never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.deadletter import DeadLetterBox
from pipeline.intake.router import Route
from pipeline.settings import PipelineSettings
from pipeline.sink import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """One sink and how it is fed.

    `key` is the sink's identity and outlives changes of everything else; another `fingerprint`
    means that the sink object must be made anew.  `misconfigured` says why no sink can be made:
    the pipeline then holds its records and delivers nothing.  Without `dead_letters`, records that
    can never be stored are dropped and counted.  An `internal` one is the program's own: where
    there are no others, what it does not take is refused, as without any sink.  One that `listens`
    acts on records that are meant for others, and is no place for them to go.  `capped` names the
    settings that are at what the sink bears: more of them would not help.
    """

    key: str
    name: str
    sink_factory: Callable[[], Sink]
    route: Route = field(default_factory=Route)
    required: bool = True
    internal: bool = False
    listens: bool = False
    paused: bool = False
    settings: PipelineSettings = field(default_factory=PipelineSettings)
    fingerprint: str = ""
    misconfigured: str = ""
    dead_letters: DeadLetterBox | None = None
    capped: frozenset[str] = frozenset()
