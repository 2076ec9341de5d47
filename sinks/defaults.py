"""The sink that a new installation starts with."""

from __future__ import annotations

import uuid

from sinks.models import SinkConfig

DEFAULT_NAME = "database"
DEFAULT_BACKEND = "sinks.backends.database.DatabaseSink"
# Known before any database answers: what is logged for it then is the row's own later.
DEFAULT_ID = uuid.UUID("c011ec70-0000-4000-8000-00000da7aba5")


def create_default_sink() -> SinkConfig:
    """The row that stores everything in this installation's database; made if it is not there."""
    fields = {"id": DEFAULT_ID, "backend": DEFAULT_BACKEND, "required": True}
    row, _ = SinkConfig.objects.get_or_create(name=DEFAULT_NAME, defaults=fields)
    return row


def default_sink() -> SinkConfig:
    """The same row, not stored: what a first start without a database goes by."""
    return SinkConfig(id=DEFAULT_ID, name=DEFAULT_NAME, backend=DEFAULT_BACKEND, required=True)
