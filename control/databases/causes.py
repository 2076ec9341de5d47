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
    "25006": "it takes no writes for now",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "55P03": "it is busy",
    "40001": "it is busy",
    "40P01": "it is busy",
    "57014": "it does not answer in time",
    "58030": "its disk does not work",
    "08003": "it closed the connection",
    "08006": "it closed the connection",
    "25P03": "it closed the connection",
    "57P05": "it closed the connection",
    "XX001": "its data are damaged",
    "XX002": "its data are damaged",
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
    ("read-only transaction", "it takes no writes for now"),
    ("No space left", "its disk is full"),
    ("disk is full", "its disk is full"),
    ("unable to open database file", "its file cannot be opened"),
    ("readonly database", "its file cannot be written"),
    ("disk I/O error", "its disk does not work"),
    ("file is not a database", "its file is damaged"),
    ("malformed", "its file is damaged"),
    ("database is locked", "it is busy"),
    ("no such table", NOT_PREPARED),
    # Last: what the drivers say besides a better reason, where they have one.
    ("connection is bad", "it cannot be reached"),
    ("connection is closed", "it closed the connection"),
    ("connection is lost", "it closed the connection"),
    ("Connection reset", "it closed the connection"),
    ("Broken pipe", "it closed the connection"),
)
_UNDEFINED_TABLE = "42P01"
# Beside all that drivers call operational: read-only for a while (a failover, a full disk), ended
# for being slow, damaged.  And what they call so that is the statement's own: too large.
_LOSSES = {"25006", "25P03", "25P04", "XX001", "XX002"}
_TOO_LARGE = "54"
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
    state = _state_of(error)
    if isinstance(error, OperationalError | InterfaceError):
        return not state.startswith(_TOO_LARGE)
    if state in _LOSSES and isinstance(error, DatabaseError):
        return True
    return isinstance(error, DatabaseError) and any(part in str(error) for part in _DAMAGED)


def _state_of(error: BaseException) -> str:
    """The SQLSTATE that the server gave, or nothing."""
    for one in (error, error.__cause__):
        state = getattr(one, "sqlstate", None)
        if isinstance(state, str):
            return state
    return ""


def is_unprepared(error: BaseException) -> bool:
    """Whether a table is missing, as in a database that waits for its migrations."""
    if getattr(error.__cause__, "sqlstate", None) == _UNDEFINED_TABLE:
        return True
    return "no such table" in str(error)
