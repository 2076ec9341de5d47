"""What all requests of a process share: limits, the byte gate, the counts of those who wait.

Made from the settings at the first request; `_lock` guards the making.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from django.conf import settings

from control.config.settings import IngestSettings, ServerSettings
from ingest.api.acks import Waiters
from ingest.api.patience import Places
from ingest.wire.decode import Limits
from pipeline.intake.bytegate import ByteGate


@dataclass(frozen=True, slots=True)
class Door:
    settings: IngestSettings
    limits: Limits
    gate: ByteGate
    waiters: Waiters
    places: Places


_lock = threading.Lock()
_door: Door | None = None


def make_door(ingest: IngestSettings, server: ServerSettings) -> Door:
    return Door(
        settings=ingest,
        limits=Limits(
            max_records=ingest.max_records,
            max_record_bytes=ingest.max_record_bytes,
            max_depth=ingest.max_depth,
        ),
        gate=ByteGate(ingest.gate_bytes),
        waiters=Waiters(limit=max(1, server.threads // 4)),
        places=Places(limit=max(1, server.threads // 4)),
    )


def door() -> Door:
    """This process's door."""
    global _door
    if _door is None:
        with _lock:
            if _door is None:
                _door = make_door(settings.COLLECTOR.ingest, settings.COLLECTOR.server)
    return _door


def reset(ingest: IngestSettings | None = None) -> None:
    """Make the door anew at the next request, or now with other limits (for tests)."""
    global _door
    with _lock:
        _door = None if ingest is None else make_door(ingest, settings.COLLECTOR.server)
