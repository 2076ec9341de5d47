"""The engine: a log that is the queue, and the pipelines that carry it to sinks.  No Django.

What stands in `__all__` is the library's public face, described in `API.md`; everything else may
change with any version.
"""

from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.deadletter import DeadLetter, DeadLetterBox
from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryDecision, RetryPolicy
from pipeline.delivery.workers import WorkerRun
from pipeline.engine import Engine
from pipeline.errors import (
    Draining,
    LogUnavailable,
    NoSink,
    PartialFailure,
    PermanentError,
    Refused,
    RetryableError,
    Saturated,
    SinkError,
    SinkFault,
    TooLarge,
)
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer
from pipeline.receipt import Receipt
from pipeline.record import (
    DEBUG,
    ERROR,
    FATAL,
    INFO,
    TRACE,
    WARN,
    Batch,
    Part,
    Record,
    level_name,
)
from pipeline.runtime.clock import Clock, FakeClock, SystemClock
from pipeline.runtime.signals import Signals
from pipeline.settings import PipelineSettings
from pipeline.sink import Sink, Written
from pipeline.spec import PipelineSpec

__all__ = [
    "DEBUG",
    "ERROR",
    "FATAL",
    "INFO",
    "TRACE",
    "WARN",
    "AdaptiveSettings",
    "AutoscaleSettings",
    "Batch",
    "BreakerSettings",
    "Clock",
    "DeadLetter",
    "DeadLetterBox",
    "Draining",
    "Engine",
    "FakeClock",
    "LogSettings",
    "LogUnavailable",
    "NoSink",
    "Observer",
    "Part",
    "PartialFailure",
    "PermanentError",
    "PipelineSettings",
    "PipelineSpec",
    "Receipt",
    "Record",
    "RecordIds",
    "Refused",
    "RetryDecision",
    "RetryPolicy",
    "RetryableError",
    "Route",
    "Saturated",
    "Signals",
    "Sink",
    "SinkError",
    "SinkFault",
    "SystemClock",
    "TooLarge",
    "WorkerRun",
    "Written",
    "level_name",
]
