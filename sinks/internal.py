"""Sinks that apps register for flows of their own: no rows, but everything else that a sink has.

An app that must act on records of some types names a sink here when it is ready; every process
with an engine then runs it, with the log, the retries and the exactly-once of any other.  Record
types that an app keeps for its own flows reach the operator's sinks only where their route names
them.  Filled at `ready()`; the registries have their own locks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from control.ports.registry import Registry
from pipeline.intake.router import Route
from pipeline.settings import PipelineSettings
from pipeline.sink import Sink
from pipeline.spec import PipelineSpec
from sinks.base import BaseSink
from sinks.deadletters.box import box_for
from sinks.guard import GuardedSink
from sinks.limits import capped_by, within_limits

PREFIX = "internal-"


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalSink:
    """One flow.  `make` makes the sink object; `tune` changes the installation's settings for it.

    One that is not `required` loses its oldest records, counted, when it has no room.  One that
    `listens` acts on records which are meant for the operator's sinks.
    """

    name: str
    types: frozenset[str]
    make: Callable[[], BaseSink[Any]]
    required: bool = True
    listens: bool = False
    tune: Callable[[PipelineSettings], PipelineSettings] = lambda defaults: defaults

    @property
    def key(self) -> str:
        return PREFIX + self.name

    def spec(self) -> PipelineSpec:
        """What the engine is told."""
        tuned = self.tune(settings.COLLECTOR.pipeline)
        sink = self.make()
        tuned = within_limits(tuned, sink)
        return PipelineSpec(
            key=self.key,
            name=self.name,
            sink_factory=self._guarded,
            route=Route(types=self.types),
            required=self.required,
            internal=True,
            listens=self.listens,
            settings=tuned,
            capped=capped_by(sink, tuned),
            fingerprint=self.key,
            dead_letters=box_for(self.key, self.name, "database"),
        )

    def _guarded(self) -> Sink:
        return GuardedSink(self.make())


_sinks: Registry[InternalSink] = Registry(what="internal sink")
_types: Registry[str] = Registry(what="internal record type")


def register_internal_sink(sink: InternalSink) -> None:
    """Have every process with an engine run this sink; the same name again replaces it."""
    _sinks.register(sink.name, sink)


def internal_sinks() -> list[InternalSink]:
    return _sinks.values()


def register_internal_type(record_type: str) -> None:
    """Keep a record type from sinks whose route does not name it."""
    _types.register(record_type, record_type)


def internal_types() -> frozenset[str]:
    return frozenset(_types.values())
