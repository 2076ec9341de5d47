"""Whose fault an error of SQLite is: the record's, the moment's or the sink's.  Pure functions."""

from __future__ import annotations

import sqlite3

from pipeline.errors import PermanentError, RetryableError, SinkError, SinkFault

_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM",
            "SQLITE_INTERRUPT", "SQLITE_PROTOCOL", "SQLITE_SCHEMA")  # fmt: skip
_RECORD = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")
BAD_VALUE = (OverflowError, ValueError, TypeError, sqlite3.InterfaceError)


def is_record_fault(error: sqlite3.Error) -> bool:
    if isinstance(error, sqlite3.InterfaceError | sqlite3.DataError):
        return True
    return str(getattr(error, "sqlite_errorname", "")).startswith(_RECORD)


def as_sink_error(error: sqlite3.Error, *, doing: str) -> SinkError:
    """Whose fault an SQLite error is: "locked" and a full disk pass, a missing table does not."""
    name = str(getattr(error, "sqlite_errorname", ""))
    text = f"{doing}: {error}"
    if name.startswith(_PASSING):
        return RetryableError(text)
    if is_record_fault(error):
        return PermanentError(text)
    return SinkFault(text)
