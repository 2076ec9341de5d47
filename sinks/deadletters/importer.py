"""Bringing spooled letters home, once each, by whichever process comes first.

Runs on a thread that the service starts when there are files; raises what the database raises, and
then the file stays as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from django.db import DatabaseError, InterfaceError, OperationalError

from pipeline import deadletter
from sinks.deadletters import appendfile, store
from sinks.deadletters.spool import Content, Spool, line_of

logger = logging.getLogger(__name__)

CHUNK_LETTERS = 1_000


def import_spool(spool: Spool, *, stopping: Callable[[], bool] = lambda: False) -> int:
    """Import every file that no living process appends to; returns how many letters were new.

    What cannot be read, or what the database refuses though it answers, goes to the quarantine
    beside the spool.
    """
    if not spool.files():
        return 0
    spool.seal()
    count = 0
    for path in spool.files():
        if stopping():
            break
        with spool.taken(path) as content:
            if content is None:
                continue
            count += _import(spool, path, content)
    return count


def quarantine_of(spool: Spool) -> Path:
    return spool.directory.parent / "quarantine"


def _import(spool: Spool, path: Path, content: Content) -> int:
    count = 0
    unusable = list(content.bad)
    for start in range(0, len(content.letters), CHUNK_LETTERS):
        chunk = content.letters[start : start + CHUNK_LETTERS]
        try:
            count += store.keep(chunk)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError:
            kept, refused = _one_by_one(chunk)
            count += kept
            unusable += [line_of(letter).rstrip(b"\n") for letter in refused]
    if unusable:
        _quarantine(spool, path.stem, unusable)
    if content.torn:
        logger.warning(
            "the end of a spool file was torn; it had not been acknowledged",
            extra={"file": path.name, "bytes": len(content.torn)},
        )
    logger.info(
        "dead letters came from the spool",
        extra={"file": path.name, "letters": len(content.letters), "new": count},
    )
    return count


def _one_by_one(
    letters: Sequence[deadletter.DeadLetter],
) -> tuple[int, list[deadletter.DeadLetter]]:
    count, refused = 0, []
    for letter in letters:
        try:
            count += store.keep([letter])
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError:
            logger.exception(
                "the control database refuses a dead letter",
                extra={"sink": letter.sink_name, "record_id": letter.record_id},
            )
            refused.append(letter)
    return count, refused


def _quarantine(spool: Spool, name: str, lines: list[bytes]) -> None:
    directory = quarantine_of(spool)
    appendfile.make_directory(directory)
    path = directory / f"{name}.lines"
    descriptor = appendfile.open_locked(path, wait=True)
    assert descriptor is not None
    try:
        appendfile.append(descriptor, b"".join(line + b"\n" for line in lines))
    finally:
        os.close(descriptor)
    logger.error(
        "dead letters could not be imported; their lines are in the quarantine",
        extra={"file": str(path), "lines": len(lines)},
    )
