"""What a PostgreSQL error means to a pipeline: whose fault it is, by the class of its SQLSTATE.

22, 23 and 44 (bad data, broken constraint) are the record's; so are 54 (a limit of PostgreSQL, such
as the longest index entry) and P0 (a trigger's RAISE) where a line of the COPY is named with them.
08, 25 (ended while idle, read-only for now), 40, 53, 55, 57, 58 and a lost connection pass.
42, 28, 3D (no such table or column, no permission, no such database) and whatever is not known here
are the sink's: nothing is dropped for them.
Pure functions.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg

from pipeline.errors import PermanentError, RetryableError, SinkError, SinkFault

RECORD_CLASSES = frozenset({"22", "23", "44"})
RECORD_CLASSES_OF_A_ROW = frozenset({"54", "P0"})
PASSING_CLASSES = frozenset({"08", "25", "40", "53", "55", "57", "58"})

# libpq tells no SQLSTATE when connecting fails; these are the server's own words.
_CONNECT_FAULTS = re.compile(
    r"password authentication failed|authentication failed|no pg_hba\.conf entry"
    r"|role \".*\" does not exist|database \".*\" does not exist|permission denied for database"
    r"|no password supplied|is not permitted to log in"
)
_LINE = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)
_COLUMN = re.compile(r"^COPY .*?, line \d+, column ([^:\s]+)", re.MULTILINE)
_LONGEST = 500


def is_record_fault(error: psycopg.Error) -> bool:
    """Whether some record of the batch is at fault, rather than the sink or the moment."""
    state = (error.sqlstate or "")[:2]
    if state in RECORD_CLASSES_OF_A_ROW:
        # Without a row it is the statement's: too many columns, say.
        return row_at_fault(error) is not None
    return state in RECORD_CLASSES


def is_missing_partition(error: psycopg.Error) -> bool:
    """A row without a partition comes as a check violation that names no constraint.

    Where the sink makes the partitions itself, it makes the missing one and tries again.  In a
    table of somebody else's the row is at fault, such as one dated 1970 among partitions of 2026.
    """
    return isinstance(error, pg.CheckViolation) and not error.diag.constraint_name


def row_at_fault(error: psycopg.Error) -> int | None:
    """The row, from 0, of the COPY that PostgreSQL's CONTEXT names."""
    found = _LINE.search(error.diag.context or "")
    return int(found[1]) - 1 if found else None


def explain(error: psycopg.Error) -> str:
    """The error in one line, with its SQLSTATE and column; not the DETAIL, which quotes the row."""
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    text = (error.diag.message_primary or first_line)[:_LONGEST]
    column = _COLUMN.search(error.diag.context or "")
    where = f" (column {column[1]})" if column else ""
    return f"{error.sqlstate}: {text}{where}" if error.sqlstate else text


def as_sink_error(error: psycopg.Error, *, doing: str) -> SinkError:
    """The error that the engine understands; `doing` says what was attempted."""
    text = f"{doing}: {explain(error)}"
    state = (error.sqlstate or "")[:2]
    if is_missing_partition(error):
        return RetryableError(text)
    if is_record_fault(error):
        return PermanentError(text)
    if state in PASSING_CLASSES:
        return RetryableError(text)
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        if _CONNECT_FAULTS.search(str(error)):
            return SinkFault(text)
        return RetryableError(text)
    return SinkFault(text)
