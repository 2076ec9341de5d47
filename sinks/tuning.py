"""What a sink may set of its own pipeline, in the place of the installation's defaults.

Pure: decoded from a sink's row by `sinks.configuration`, shown as a form by `sinks.forms`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any, Literal

from msgspec import Meta

from pipeline.settings import PipelineSettings
from sinks.options import SinkOptions

# Overrides that are on or off, and the setting that each stands for.
_SWITCHES = {
    "breaker": "breaker_enabled",
    "ordered": "ordered",
    "adaptive_batch": "adaptive_batch",
    "adaptive_concurrency": "adaptive_concurrency",
}

_PARTS = ("retry", "breaker", "autoscale", "adaptive")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A broken rule, with the settings that it is about."""

    text: str
    names: tuple[str, ...]


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
    hint_watermark: (
        Annotated[
            float,
            Meta(gt=0, le=1, description="Share from which clients are told the room left."),
        ]
        | None
    ) = None
    shed_watermark: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=1,
                description="Share from which records of low levels are shed; empty: never.",
            ),
        ]
        | None
    ) = None
    shed_below: Annotated[
        Literal["default", "DEBUG", "INFO", "WARN", "ERROR"],
        Meta(description="The level from which on nothing is shed."),
    ] = "default"
    partition_by: Annotated[
        Literal["default", "none", "tenant"],
        Meta(
            description="tenant: no batch holds two tenants' records. A write for each tenant is "
            "slow where there are many."
        ),
    ] = "default"
    max_partitions: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=100_000,
                description="With partition_by: tenants whose batches fill at the same time.",
            ),
        ]
        | None
    ) = None
    ordered: Annotated[
        Literal["default", "on", "off"],
        Meta(
            description="Whether each tenant's records reach the sink in the order in which they "
            "came: a batch that is tried again holds its tenants' later records back."
        ),
    ] = "default"
    autoscale_interval_s: (
        Annotated[
            float,
            Meta(gt=0, le=3600, description="Seconds between two looks at the number of workers."),
        ]
        | None
    ) = None
    autoscale_up: (
        Annotated[
            float,
            Meta(gt=0, le=1, description="Share of the room held above which a worker is added."),
        ]
        | None
    ) = None
    autoscale_down: (
        Annotated[
            float,
            Meta(ge=0, lt=1, description="Share of the room held below which a worker leaves."),
        ]
        | None
    ) = None
    autoscale_up_batches: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=10_000,
                description="Full batches waiting for each worker above which one is added; 0: "
                "only the share counts.",
            ),
        ]
        | None
    ) = None
    autoscale_cooldown_s: (
        Annotated[
            float,
            Meta(ge=0, le=3600, description="Seconds after a change of the number of workers."),
        ]
        | None
    ) = None
    adaptive_batch: Annotated[
        Literal["default", "on", "off"],
        Meta(description="Whether the size of a batch finds itself, in place of max_records."),
    ] = "default"
    adaptive_concurrency: Annotated[
        Literal["default", "on", "off"],
        Meta(description="Whether the number of writes at once finds itself."),
    ] = "default"
    adaptive_start_records: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="The size that it starts with.")] | None
    ) = None
    adaptive_min_records: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="The smallest such size.")] | None
    ) = None
    adaptive_max_records: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="The largest such size.")] | None
    ) = None
    adaptive_flush_deadline_s: (
        Annotated[
            float,
            Meta(gt=0, le=3600, description="Seconds; a flush should take half of it at most."),
        ]
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
        own, nested = self._given(defaults)
        made = {
            part: dataclasses.replace(getattr(defaults, part), **values)
            for part, values in nested.items()
        }
        return dataclasses.replace(defaults, **own, **made)

    def problems(self, defaults: PipelineSettings) -> list[Problem]:
        """Every rule that is broken by what is set here over the defaults."""
        own, nested = self._given(defaults)
        found = []
        for part, values in nested.items():
            try:
                dataclasses.replace(getattr(defaults, part), **values)
            except ValueError as error:
                found += [_problem(text, part) for text in str(error).split("; ")]
        try:
            dataclasses.replace(defaults, **own)
        except ValueError as error:
            found += [_problem(text, "") for text in str(error).split("; ")]
        return found

    def _given(self, defaults: PipelineSettings) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is set, by the names that the settings have; by part where they are nested."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        given = {name: value for name, value in given.items() if value is not None}
        del given["dead_letters"]  # not the engine's concern
        for name, stands_for in _SWITCHES.items():
            if (value := given.pop(name)) != "default":
                given[stands_for] = value == "on"
        for name in ("shed_below", "partition_by"):
            if given[name] == "default":
                del given[name]
        if given.get("partition_by") == "none":
            given["partition_by"] = ""
        nested = {}
        for part in _PARTS:
            nested[part], given = _of(f"{part}_", given)
        if "max_workers" in given:
            given.setdefault("min_workers", min(defaults.min_workers, given["max_workers"]))
        return given, nested


def with_words(values: dict[str, Any]) -> dict[str, Any]:
    """Overrides with true and false, as the installation's settings have them, in their words."""
    return {
        name: ("on" if value else "off") if name in _SWITCHES and isinstance(value, bool) else value
        for name, value in values.items()
    }


def as_overrides(settings: PipelineSettings) -> dict[str, Any]:
    """What settings say, each by the name and in the words that an override of it has."""
    said: dict[str, Any] = {"dead_letters": "database"}
    for name in PipelineOverrides.__struct_fields__:
        if name == "dead_letters":
            continue
        stands_for = _SWITCHES.get(name, name)
        part, _, rest = stands_for.partition("_")
        if part in _PARTS:
            value = getattr(getattr(settings, part), rest)
        else:
            value = getattr(settings, stands_for)
        if name in _SWITCHES:
            value = "on" if value else "off"
        elif name == "partition_by":
            value = value or "none"
        said[name] = value
    return said


def _problem(text: str, part: str) -> Problem:
    """Which overrides a broken rule names; those of a part are named without its prefix."""
    known = PipelineOverrides.__struct_fields__
    words = [f"{part}_{word}" if part else word for word in re.findall(r"[a-z_]+", text)]
    return Problem(text=text, names=tuple(word for word in words if word in known))


def _of(prefix: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those whose names begin with the prefix, without it; and the others."""
    own = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    return own, {n: v for n, v in given.items() if not n.startswith(prefix)}
