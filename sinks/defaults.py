"""The sink that a new installation starts with."""

from __future__ import annotations

from sinks.models import SinkConfig

DEFAULT_NAME = "database"
DEFAULT_BACKEND = "sinks.backends.database.DatabaseSink"


def create_default_sink() -> SinkConfig:
    """The row that stores everything in this installation's database; made if it is not there."""
    row, _ = SinkConfig.objects.get_or_create(
        name=DEFAULT_NAME, defaults={"backend": DEFAULT_BACKEND, "required": True}
    )
    return row
