"""Reading a record anew from an edited payload, as the front door would have read it.

The app that knows a record type's wire format registers a reader for it.
"""

from __future__ import annotations

from typing import Protocol

from control.ports.registry import Registry
from pipeline.record import Record


class UnreadablePayload(ValueError):
    """The payload is no record of this type; the text says why."""


class PayloadReader(Protocol):
    def __call__(self, payload: bytes, *, tenant: str, arrival_us: int) -> Record:
        """The record of one JSON object.  Raises UnreadablePayload."""
        ...


_readers: Registry[PayloadReader] = Registry(what="payload reader")


def register_payload_reader(record_type: str, reader: PayloadReader) -> None:
    _readers.register(record_type, reader)


def unregister_payload_reader(record_type: str) -> None:
    _readers.unregister(record_type)


def payload_reader(record_type: str) -> PayloadReader | None:
    return _readers.get(record_type)
