"""Owns: the log that the producer makes.  Pure."""

from __future__ import annotations

from pipeline.record import INFO, Record

MESSAGE = "hello from producer"


def hello(time_us: int) -> Record:
    """What `POST /logs` makes of the same line; `time_us` counts microseconds since 1970."""
    line = b'{"msg": "hello from producer", "level": "INFO", "ts": %d}' % time_us
    return Record(time_us, INFO, "", MESSAGE, "", "", line)
