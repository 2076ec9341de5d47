"""What a sink may set of its own pipeline, in the place of the installation's defaults.

Pure: decoded from a sink's row by `sinks.configuration`, shown as a form by `sinks.forms`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from msgspec import Meta

from pipeline.settings import PipelineSettings
from sinks.options import SinkOptions


class PipelineOverrides(SinkOptions, frozen=True, kw_only=True):
    """What a sink may have otherwise than the installation's defaults; None keeps the default."""

    max_records: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="Records in one batch, at most.")]
        | None
    ) = None
    max_bytes: (
        Annotated[int, Meta(ge=1024, le=1 << 30, description="Bytes in one batch, at most.")] | None
    ) = None
    max_wait_s: (
        Annotated[float, Meta(ge=0, le=3600, description="Seconds a batch waits to fill, at most.")]
        | None
    ) = None
    capacity_records: (
        Annotated[int, Meta(ge=1, description="Records held for this sink, at most.")] | None
    ) = None
    backlog_max_bytes: (
        Annotated[int, Meta(ge=1024, description="Bytes held for this sink, at most.")] | None
    ) = None
    high_watermark: (
        Annotated[
            float, Meta(gt=0, le=1, description="Share of the capacity above which it is full.")
        ]
        | None
    ) = None
    low_watermark: (
        Annotated[float, Meta(gt=0, le=1, description="Share at which it takes records again.")]
        | None
    ) = None
    min_workers: (
        Annotated[int, Meta(ge=1, le=64, description="Worker threads, at least.")] | None
    ) = None
    max_workers: (
        Annotated[int, Meta(ge=1, le=64, description="Worker threads, at most.")] | None
    ) = None
    retry_max_attempts: (
        Annotated[
            int, Meta(ge=1, description="Attempts before a batch is given up; empty: no limit.")
        ]
        | None
    ) = None
    retry_max_age_s: (
        Annotated[
            float,
            Meta(
                gt=0,
                description="Seconds before a batch is given up, not counting the time that the "
                "breaker was open; empty: no limit.",
            ),
        ]
        | None
    ) = None
    attempt_timeout_s: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=86_400,
                description="Seconds after which a write is cut off and tried again. Let it be "
                "more than the slowest write takes.",
            ),
        ]
        | None
    ) = None
    max_hung_workers: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=64,
                description="Threads that may hang in this sink before its pipeline begins "
                "nothing any more.",
            ),
        ]
        | None
    ) = None
    poison_limit: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=1,
                description="Share of the records that the sink may refuse. Above it the sink is "
                "taken to be at fault and nothing is dead-lettered; 1 dead-letters all it refuses.",
            ),
        ]
        | None
    ) = None
    breaker: Annotated[
        Literal["default", "on", "off"],
        Meta(description="Whether a sink that keeps failing is left alone for a while."),
    ] = "default"
    breaker_consecutive: (
        Annotated[int, Meta(ge=1, description="Failures in a row that open the breaker.")] | None
    ) = None
    breaker_failure_ratio: (
        Annotated[
            float, Meta(gt=0, le=1, description="Share of failed attempts that opens the breaker.")
        ]
        | None
    ) = None
    breaker_min_calls: (
        Annotated[int, Meta(ge=1, description="Attempts that such a share must be of, at least.")]
        | None
    ) = None
    breaker_window_s: (
        Annotated[
            float,
            Meta(gt=0, le=86_400, description="Seconds over which such a share is counted."),
        ]
        | None
    ) = None
    breaker_open_s: (
        Annotated[
            float,
            Meta(
                gt=0, le=86_400, description="Seconds that an open breaker leaves the sink alone."
            ),
        ]
        | None
    ) = None
    breaker_half_open_probes: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=64,
                description="Attempts let through after that; when all succeed, it closes.",
            ),
        ]
        | None
    ) = None
    dead_letters: Annotated[
        Literal["database", "file"],
        Meta(
            description="Where records go that can never be stored: into the database, where they "
            "are looked at and redriven here, or into a file of NDJSON in the data directory."
        ),
    ] = "database"

    def applied_to(self, defaults: PipelineSettings) -> PipelineSettings:
        """The defaults with what is set here.  Raises ValueError where they do not fit together."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        given = {name: value for name, value in given.items() if value is not None}
        del given["dead_letters"]  # not the engine's concern
        if (breaker := given.pop("breaker")) != "default":
            given["breaker_enabled"] = breaker == "on"
        retry, given = _of("retry_", given)
        breaking, given = _of("breaker_", given)
        if "max_workers" in given:
            given.setdefault("min_workers", min(defaults.min_workers, given["max_workers"]))
        return dataclasses.replace(
            defaults,
            **given,
            retry=dataclasses.replace(defaults.retry, **retry),
            breaker=dataclasses.replace(defaults.breaker, **breaking),
        )


def _of(prefix: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those whose names begin with the prefix, without it; and the others."""
    own = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    return own, {n: v for n, v in given.items() if not n.startswith(prefix)}
