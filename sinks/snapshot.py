"""The last good copy of the sinks' rows, in the data directory: what starts without a database.

Written after each successful reading of the rows, readable by the owner alone.  Secrets are kept
as the rows keep them: encrypted with the installation's secret key, or as references to the
environment.  Written by renaming a finished file into place.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings

from sinks.defaults import default_sink
from sinks.models import SinkConfig

logger = logging.getLogger(__name__)

_FIELDS = (
    "name", "backend", "options", "secrets", "required", "enabled", "paused", "route_types",
    "route_tenants", "min_level", "pipeline",
)  # fmt: skip


def path() -> Path:
    """Where the copy is kept."""
    return Path(settings.COLLECTOR.server.data_dir) / "sinks.json"


def save(rows: Iterable[SinkConfig]) -> None:
    """Replace the copy; a data directory that cannot be written is logged, no more."""
    entries = [
        {"id": str(row.id), **{name: getattr(row, name) for name in _FIELDS}} for row in rows
    ]
    data = json.dumps({"version": 1, "sinks": entries}, indent=1, sort_keys=True).encode()
    target = path()
    try:
        if target.exists() and target.read_bytes() == data:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
        _sync(target.parent)
    except OSError as error:
        logger.warning("the copy of the sinks' rows was not written: %s", error)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load() -> list[SinkConfig]:
    """The rows of the copy, or at the first start the default sink; none for a damaged copy."""
    try:
        entries = json.loads(path().read_bytes())["sinks"]
        return [
            SinkConfig(id=uuid.UUID(entry["id"]), **{n: entry[n] for n in _FIELDS if n in entry})
            for entry in entries
        ]
    except FileNotFoundError:
        # Nothing was ever configured here: what the databases will begin with once they answer.
        return [default_sink()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.error("the copy of the sinks' rows cannot be used: %s", error)
        return []
