"""What this room registers when Django is ready."""

from __future__ import annotations

import dataclasses

from healthmon.checker.housekeeping import register_task
from healthmon.truth.changes import FLIP
from pipeline.settings import PipelineSettings
from sinks.internal import InternalSink, register_internal_sink, register_internal_type

BURNS_EVERY_S = 60.0
# Somebody waits to be told: neither a batch, nor a database that is back, nor one that has fallen
# silent is waited for longer.
MAX_WAIT_S = 0.05
MAX_RETRY_S = 5.0
MAX_OPEN_S = 2.0
MAX_ATTEMPT_S = 10.0


def arm() -> None:
    """Register everything; harmless when called again."""
    from healthmon.truth.metrics import metrics
    from healthmon.truth.sink import FlipsSink
    from healthmon.truth.slo import judge_burns

    metrics()
    register_internal_type(FLIP)
    register_internal_sink(
        InternalSink(
            name="flips", types=frozenset({FLIP}), make=FlipsSink, required=True, tune=_tuned
        )
    )
    register_task("burn rates", BURNS_EVERY_S, judge_burns)


def _tuned(defaults: PipelineSettings) -> PipelineSettings:
    """Soon, and for ever: a change of status is given up for no outage."""
    retry = dataclasses.replace(
        defaults.retry,
        base_s=min(defaults.retry.base_s, MAX_RETRY_S),
        cap_s=min(defaults.retry.cap_s, MAX_RETRY_S),
        max_attempts=None,
        max_age_s=None,
    )
    breaker = dataclasses.replace(defaults.breaker, open_s=min(defaults.breaker.open_s, MAX_OPEN_S))
    return dataclasses.replace(
        defaults,
        max_wait_s=min(defaults.max_wait_s, MAX_WAIT_S),
        attempt_timeout_s=min(defaults.attempt_timeout_s, MAX_ATTEMPT_S),
        retry=retry,
        breaker=breaker,
    )
