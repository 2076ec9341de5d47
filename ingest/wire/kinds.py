"""What the front door takes in: a kind is a record type with its decoder and its builder.

The types and the limits of the structs are those of the fields; whatever they refuse is read
again by `read`, which says what is wrong or finds that it is right after all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingest.wire import counters, events, health, logs
from pipeline.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One record type at the door.

    `decode` makes a typed struct of one line or raises; `build` makes records of structs, their
    lines and the time of arrival, or raises RecordError, TypeError; `read` does the same for one
    record's fields, patiently.  `text` tells whether a bare line of text can be a record,
    `levelled` whether a record says how much it matters: what does not is never shed.
    """

    type: str
    scope: str
    text: bool
    levelled: bool
    decode: Callable[[bytes], Any]
    build: Callable[[list[Any], list[bytes], int], list[Record]]
    read: Callable[[dict[str, Any], bytes, int], Record]


LOGS = Kind(
    type="log",
    scope="logs",
    text=True,
    levelled=True,
    decode=logs.decode,
    build=logs.build,
    read=logs.read,
)
HEALTH = Kind(
    type="health",
    scope="health",
    text=False,
    levelled=False,
    decode=health.decode,
    build=health.build,
    read=health.read,
)
EVENTS = Kind(
    type="event",
    scope="events",
    text=False,
    levelled=False,
    decode=events.decode,
    build=events.build,
    read=events.read,
)
COUNTERS = Kind(
    type="counter",
    scope="counters",
    text=False,
    levelled=False,
    decode=counters.decode,
    build=counters.build,
    read=counters.read,
)
