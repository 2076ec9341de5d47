"""The types that are configured, in this process's memory.

Read by any thread as one value that is replaced, never changed.  The heart compares a fingerprint
of the small tables every two seconds; while the database is away the last reading stands.  A row
that cannot be used makes its type `broken`, with the reason, and touches no other.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jobs.types.models import DownstreamService, JobType, TypeStep
from jobs.types.spec import (
    DownstreamSpec,
    StepSpec,
    TypeSpec,
    downstream_spec,
    step_spec,
    type_spec,
)

logger = logging.getLogger(__name__)

# A name that nobody knows is looked up in the database at most so often.
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What is configured; `broken` says of a type or downstream service why it cannot be used."""

    types: Mapping[int, TypeSpec] = field(default_factory=dict)
    downstreams: Mapping[int, DownstreamSpec] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    by_name: Mapping[str, TypeSpec] = field(default_factory=dict)


def load() -> Catalogue:
    """Read the rows.  Raises `django.db.Error`."""
    broken: dict[str, str] = {}
    downstreams: dict[int, DownstreamSpec] = {}
    for service in DownstreamService.objects.all():
        try:
            downstreams[service.pk] = downstream_spec(service)
        except (ValueError, TypeError) as error:
            broken[f"downstream {service.name}"] = str(error)
    steps: dict[int, list[StepSpec]] = {}
    faults: dict[int, str] = {}
    for step in TypeStep.objects.order_by("type_id", "stage", "id"):
        try:
            steps.setdefault(step.type_id, []).append(step_spec(step, downstreams))
        except KeyError:
            faults[step.type_id] = f"step {step.name}: its downstream service cannot be used"
        except (ValueError, TypeError) as error:
            faults[step.type_id] = f"step {step.name}: {error}"
    types: dict[int, TypeSpec] = {}
    for row in JobType.objects.all():
        try:
            spec = type_spec(row, tuple(steps.get(row.pk, ())))
        except (ValueError, TypeError) as error:
            faults[row.pk] = str(error)
        if row.pk in faults:
            broken[f"type {row.name}"] = faults[row.pk]
        else:
            types[row.pk] = spec
    return Catalogue(
        types=types,
        downstreams=downstreams,
        broken=broken,
        by_name={one.name: one for one in types.values()},
    )


def fingerprint() -> str:
    """Changes whenever a row does.  Raises `django.db.Error`."""
    digest = hashlib.sha256()
    for model in (DownstreamService, JobType, TypeStep):
        for values in model.objects.order_by("pk").values_list():
            digest.update(repr(values).encode())
    return digest.hexdigest()


_current = Catalogue()


def current() -> Catalogue:
    """The last reading."""
    return _current


def refresh() -> Catalogue:
    """Read anew, now.  Raises `django.db.Error`, and the last reading stands."""
    global _current
    read = load()
    for name in read.broken.keys() - _current.broken.keys():
        logger.error("cannot be used", extra={"what": name, "why": read.broken[name]})
    _current = read
    return read


_looking = threading.Lock()
_looked_at: float | None = None


def lookup(name: str, *, monotonic: Callable[[], float] = time.monotonic) -> TypeSpec | None:
    """The type of that name; None where there is none, or it is broken.

    One that is not known may have been made a moment ago by another process: then the rows are
    read anew, at most once in `LOOK_AGAIN_S`.  Raises `django.db.Error` where that fails.
    """
    global _looked_at
    found = _current.by_name.get(name)
    if found is not None:
        return found
    with _looking:
        now = monotonic()
        if _looked_at is None or now - _looked_at >= LOOK_AGAIN_S:
            refresh()
            _looked_at = now
    return _current.by_name.get(name)
