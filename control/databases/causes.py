"""Why a database cannot be used, in words for an operator: no address, no user, no password.

Pure functions over the errors of the drivers and of Django.
"""

from __future__ import annotations

from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError

NOT_PREPARED = "its tables are not there yet: it waits to be prepared"
_BY_STATE = {
    "28P01": "it refuses the user or the password",
    "28000": "it refuses the user or the password",
    "3D000": "the server has no database of that name",
    "53300": "it has no connection left",
    "57P01": "it is being shut down",
    "57P02": "it crashed",
    "42P01": NOT_PREPARED,
    "57P03": "it is starting up or shutting down",
}
_BY_TEXT = (
    ("Connection refused", "nothing listens at its address"),
    ("password authentication failed", "it refuses the user or the password"),
    ("no password supplied", "it asks for a password"),
    ("does not exist", "the server has no such database or user"),
    ("too many clients", "it has no connection left"),
    ("remaining connection slots", "it has no connection left"),
    ("starting up", "it is starting up"),
    ("shutting down", "it is shutting down"),
    ("terminating connection", "it is being shut down"),
    ("timeout expired", "it does not answer"),
    ("timed out", "it does not answer"),
    ("couldn't get a connection", "it gives no connection"),
    ("No such file or directory", "no server listens on its socket"),
    ("could not translate host name", "its host name is unknown"),
    ("failed to resolve host", "its host name is unknown"),
    ("Name or service not known", "its host name is unknown"),
    ("unreachable", "its network cannot be reached"),
    ("server closed the connection", "it closed the connection"),
    ("unable to open database file", "its file cannot be opened"),
    ("readonly database", "its file cannot be written"),
    ("disk I/O error", "its disk does not work"),
    ("file is not a database", "its file is damaged"),
    ("malformed", "its file is damaged"),
    ("database is locked", "it is busy"),
    ("no such table", NOT_PREPARED),
)
_UNDEFINED_TABLE = "42P01"
_DAMAGED = ("file is not a database", "malformed")


def cause_of(error: BaseException) -> str:
    """In a few words; the kind of the error where there are none."""
    first: BaseException | None = error
    while first is not None:
        state = getattr(first, "sqlstate", None)
        if state in _BY_STATE:
            return _BY_STATE[state]
        text = str(first)
        for part, words in _BY_TEXT:
            if part in text:
                return words
        first = first.__cause__
    return type(error).__name__


def is_loss(error: BaseException) -> bool:
    """Whether this tells that the database itself cannot be used, rather than a statement."""
    if isinstance(error, ProgrammingError):
        return is_unprepared(error)
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return isinstance(error, DatabaseError) and any(part in str(error) for part in _DAMAGED)


def is_unprepared(error: BaseException) -> bool:
    """Whether a table is missing, as in a database that waits for its migrations."""
    if getattr(error.__cause__, "sqlstate", None) == _UNDEFINED_TABLE:
        return True
    return "no such table" in str(error)
