"""Which heartbeat targets there are, by the digest of their address and by service: in memory.

Read by requests and by the sinks' workers without a lock: `_held` is replaced whole.  The heart
refreshes it every REFRESH_S.  A digest that is unknown is asked for in the database before it is
called so: its target may have been added this moment, and what is refused is a ping that nobody
sends again.  `_lock` is held while one thread reads the database, so that there is only one; who
looks for one digest waits for it no longer than ANSWER_S.  The last good copy in the data
directory (0600, digests only) serves where the database has not answered since the start.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import Error as DatabaseProblem

from control.databases.deadline import answered_within
from control.processes import heart
from healthmon.heartbeats.kind import NAME
from healthmon.heartbeats.stamps import Stamps
from healthmon.targets.models import Target
from pipeline.intake.ratelimit import Bucket
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

TASK = "heartbeat targets"
REFRESH_S = 2.0
# A database that failed is left alone for so long by those who look for one digest.
AWAY_S = 0.5
ANSWER_S = 1.0
# How often digests may be looked for, whoever guesses them and from how many addresses.
LOOKS_PER_S, LOOKS_BURST = 20.0, 200.0


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A heartbeat target as those need it who take its pings."""

    id: int
    name: str
    digest: str
    service: str
    tenant: str


class IndexUnknown(Exception):
    """Nobody knows now which targets there are: neither a database nor a copy told."""


@dataclass(frozen=True, slots=True)
class _Held:
    by_digest: Mapping[str, Known] = field(default_factory=dict)
    by_service: Mapping[str, tuple[Known, ...]] = field(default_factory=dict)
    ids: Mapping[int, Known] = field(default_factory=dict)


def _held(rows: list[Known]) -> _Held:
    services: dict[str, list[Known]] = {}
    for row in rows:
        if row.service:
            services.setdefault(row.service, []).append(row)
    return _Held(
        {row.digest: row for row in rows if row.digest},
        {service: tuple(found) for service, found in services.items()},
        {row.id: row for row in rows},
    )


class HeartbeatIndex:
    def __init__(self, *, clock: Clock | None = None, path: Callable[[], Path] | None = None):
        self._clock = clock or SystemClock()
        self._path = path or _snapshot_path
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._stamps = Stamps()
        self._read_at = float("-inf")
        self._away = False
        self._looks = self._unused_looks()

    def register(self) -> None:
        """Have the heart keep it fresh."""
        heart.every(TASK, REFRESH_S, self.refresh)

    def of_digest(self, digest: str) -> Known | None:
        """The target of a ping address, from memory.

        One that is not found may exist all the same: `look_for` tells.  Raises IndexUnknown.
        """
        return self._get().by_digest.get(digest)

    def look_for(self, digest: str) -> Known | None:
        """The target of an address that is not known: asks the database.

        Raises IndexUnknown where that cannot be told now.
        """
        if self._looks.take() or not self._lock.acquire(timeout=ANSWER_S):
            raise IndexUnknown
        try:
            if self._away and self._clock.monotonic() - self._read_at < AWAY_S:
                raise IndexUnknown
            try:
                with answered_within(ANSWER_S):
                    if not Target.objects.filter(kind=NAME, ping_digest=digest).exists():
                        return None
                    # Whatever its stamp says: it is there.
                    self._stamps = Stamps()
                    self._refresh()
            except DatabaseProblem:
                self._away, self._read_at = True, self._clock.monotonic()
                raise IndexUnknown from None
        finally:
            self._lock.release()
        return self._get().by_digest.get(digest)

    def of_service(self, service: str, tenant: str) -> tuple[Known, ...]:
        """The targets fed by a service's pings to /health.  Raises IndexUnknown."""
        held = self._held or self._get()
        found = held.by_service.get(service)
        if found is None:
            return ()
        return tuple(one for one in found if one.tenant in ("", tenant))

    def services(self) -> Mapping[str, tuple[Known, ...]]:
        """For one look at many records.  Raises IndexUnknown."""
        return (self._held or self._get()).by_service

    def refresh(self) -> None:
        """Read what has changed.  Raises django.db.Error."""
        with self._lock:
            self._refresh()

    def reset(self) -> None:
        """Know nothing, as after a start."""
        with self._lock:
            self._held, self._stamps = None, Stamps()
            self._read_at, self._away = float("-inf"), False
            self._looks = self._unused_looks()

    def _unused_looks(self) -> Bucket:
        return Bucket(rate_per_s=LOOKS_PER_S, burst=LOOKS_BURST, monotonic=self._clock.monotonic)

    def _refresh(self) -> None:
        try:
            self._read()
        except DatabaseProblem:
            self._away = True
            raise
        finally:
            self._read_at = self._clock.monotonic()
        self._away = False

    def _read(self) -> None:
        if not self._stamps.moved() and self._held is not None:
            return
        ours = Target.objects.filter(kind=NAME)
        rows = [
            Known(pk, name, digest or "", address, str(options.get("tenant", "")))
            for pk, name, digest, address, options in ours.order_by("pk").values_list(
                "pk", "name", "ping_digest", "address", "options"
            )
        ]
        self._held = _held(rows)
        self._stamps.taken()
        self._save(rows)

    def _get(self) -> _Held:
        held = self._held
        if held is not None:
            return held
        with self._lock:
            if self._held is None:
                try:
                    self._refresh()
                except DatabaseProblem:
                    self._held = self._load()
            if self._held is None:
                raise IndexUnknown
            return self._held

    def _load(self) -> _Held | None:
        try:
            rows = msgspec.json.decode(self._path().read_bytes(), type=list[Known])
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            logger.error(
                "the copy of heartbeat targets cannot be used", extra={"error": str(error)}
            )
            return None
        logger.warning("the control database is away; heartbeat targets are those of the last copy")
        return _held(rows)

    def _save(self, rows: list[Known]) -> None:
        path = self._path()
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(rows))
                file.flush()
                os.fdatasync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            logger.error("the copy of heartbeat targets was not written: %s", error)


def _snapshot_path() -> Path:
    return Path(settings.COLLECTOR.server.data_dir) / "snapshot" / "heartbeats.json"


_index = HeartbeatIndex()


def index() -> HeartbeatIndex:
    """This process's."""
    return _index
