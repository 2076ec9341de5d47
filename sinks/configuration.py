"""From a row to what the engine is told: options with secrets, routes, settings, fingerprints.

Called by the control thread and by requests of the admin; keeps nothing.  What is wrong with a row
makes that row's pipeline `misconfigured`, with the reason, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings

from pipeline.intake.router import Route
from pipeline.record import DEBUG, ERROR, FATAL, INFO, WARN
from pipeline.settings import PipelineSettings
from pipeline.sink import Sink
from pipeline.spec import PipelineSpec
from sinks import optionrows
from sinks.base import BaseSink
from sinks.deadletters.box import box_for
from sinks.guard import GuardedSink
from sinks.internal import internal_types
from sinks.limits import capped_by, within_limits
from sinks.models import SinkConfig
from sinks.options import OptionsError, decode_options, secret_names
from sinks.registry import BackendError, load_backend, make_sink
from sinks.secrets import SecretError
from sinks.tuning import PipelineOverrides, with_words

SEVERITIES = {"": 0, "DEBUG": DEBUG, "INFO": INFO, "WARN": WARN, "ERROR": ERROR, "FATAL": FATAL}


def set_options(row: SinkConfig, values: dict[str, Any], *, keep: Iterable[str] = ()) -> None:
    """Put plain option values into the row; secrets are encrypted, references stay readable.

    The stored secrets named in `keep` stay as they are.  Raises BackendError.
    """
    optionrows.set_options(row, values, secret=_secret_names(row), keep=keep)


def plain_options(row: SinkConfig) -> dict[str, Any]:
    """The options with secrets decrypted and references resolved.  Raises SecretError."""
    return optionrows.plain_options(row, secret=_secret_names(row))


def build_sink(row: SinkConfig) -> BaseSink[Any]:
    """The sink object of a row, not opened.  Raises BackendError or SecretError."""
    try:
        return make_sink(row.backend, plain_options(row), name=row.name)
    except SecretError as error:
        raise BackendError(f'sink "{row.name}": {error}') from None


def pipeline_settings(row: SinkConfig, sink: BaseSink[Any] | None = None) -> PipelineSettings:
    """The installation's settings, the row's own, the sink's limits.  Raises BackendError."""
    defaults: PipelineSettings = settings.COLLECTOR.pipeline
    try:
        overrides = decode_options(PipelineOverrides, with_words(row.pipeline))
    except OptionsError as error:
        raise BackendError(f'sink "{row.name}": pipeline {error}') from None
    try:
        merged = overrides.applied_to(defaults)
    except ValueError as error:
        raise BackendError(f'sink "{row.name}": {error}') from None
    return merged if sink is None else within_limits(merged, sink)


def spec_for(row: SinkConfig) -> PipelineSpec:
    """What the engine is told about a row; never raises for what the row says."""
    problem = ""
    sink: BaseSink[Any] | None = None
    merged: PipelineSettings = settings.COLLECTOR.pipeline
    capped: frozenset[str] = frozenset()
    try:
        sink = build_sink(row)
        merged = pipeline_settings(row, sink)
        capped = capped_by(sink, merged)
    except BackendError as error:
        problem = str(error)
    except Exception as error:  # a third party's constructor may fail in any way
        problem = f'sink "{row.name}": {type(error).__name__} while it was made'
    if problem:
        # What is held until it is set right is bounded as the row says, if it says it well.
        with contextlib.suppress(BackendError):
            merged = pipeline_settings(row)
    return PipelineSpec(
        key=str(row.id),
        name=row.name,
        sink_factory=_factory(row),
        route=Route(
            types=frozenset(row.route_types) or None,
            kept=internal_types(),
            tenants=frozenset(row.route_tenants) or None,
            min_severity=SEVERITIES.get(row.min_level, 0),
        ),
        required=row.required,
        paused=row.paused,
        settings=merged,
        fingerprint=sink_fingerprint(row),
        misconfigured=problem,
        capped=capped,
        dead_letters=box_for(
            str(row.id), row.name, str(row.pipeline.get("dead_letters", "database"))
        ),
    )


def sink_fingerprint(row: SinkConfig) -> str:
    """Changes when the sink object must be made anew."""
    return _digest([row.backend, row.name, row.options, row.secrets])


def rows_fingerprint(rows: Iterable[SinkConfig]) -> str:
    """Changes when any row changes in a way that the engine must hear of."""
    return _digest(
        [
            [
                str(row.id),
                sink_fingerprint(row),
                [row.required, row.enabled, row.paused, row.min_level],
                [row.route_types, row.route_tenants, row.pipeline],
            ]
            for row in sorted(rows, key=lambda row: str(row.id))
        ]
    )


def _secret_names(row: SinkConfig) -> frozenset[str]:
    return secret_names(load_backend(row.backend, row=row.name).cls.Options)


def _factory(row: SinkConfig) -> Callable[[], Sink]:
    def make() -> Sink:
        return GuardedSink(build_sink(row))

    return make


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
