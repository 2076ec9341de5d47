"""When a job was submitted, told by its id, and the ids of a time.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

_SHIFT = 80
_MAX_MS = 2**48 - 1


def submitted_at(id: UUID) -> datetime:
    """To the millisecond, by the clock of whoever took it in."""
    return datetime.fromtimestamp((id.int >> _SHIFT) / 1000, UTC)


def first_id_at(moment: datetime) -> UUID:
    """Not greater than the id of any job that was submitted from then on."""
    ms = min(max(int(moment.timestamp() * 1000), 0), _MAX_MS)
    return UUID(int=ms << _SHIFT)


def stamp(moment: datetime | None) -> str | None:
    """As answers write it: UTC, to the millisecond or finer."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
