"""Log lines as JSON on stderr (or readable ones for a terminal), through structlog's formatter.

Every module logs through the standard library; `extra=` fields become members of the line. A line
written while a request is answered carries its `request_id`; whoever works on a batch binds
`worker_id` and `batch_id` with `structlog.contextvars.bound_contextvars`, or passes them as
`extra=`. Configured once per process while Django sets up; handlers lock as the standard library's
do.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class OnlyFailures(logging.Filter):
    """Of Django's remarks on answers, the ones about a failure of ours.

    A refusal (429, 503 while draining, a probe that says "not ready") is an answer, and under load
    there are thousands.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", 500) == 500


def configure(config: Mapping[str, Any]) -> None:
    """Set up logging; `config` is `settings.LOGGING`: format and level."""
    console = config["format"] == "console"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": formatter, "console": console}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stderr",
                    "formatter": "lines",
                }
            },
            "filters": {"failures": {"()": OnlyFailures}},
            "root": {"handlers": ["stderr"], "level": config["level"]},
            "loggers": {
                "django.security.DisallowedHost": {"level": "CRITICAL"},
                "django.request": {"filters": ["failures"]},
                # Each try of each connection, while our own lines say once that a database is away.
                "psycopg.pool": {"level": "ERROR"},
            },
        }
    )


def formatter(*, console: bool) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _request_id,
        _without_request,
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        last += [_inert, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        last += [structlog.processors.format_exc_info, _render]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)


def _request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if not event.get("request_id"):
        # Imported late: the formatter also serves processes that set Django up later.
        from control.web.requestid import current_request_id

        request_id = current_request_id.get()
        if request_id:
            event["request_id"] = request_id
    return event


def _without_request(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # Django attaches the whole request, whose repr would say less than the id does.
    event.pop("request", None)
    event.pop("taskName", None)
    return event


def _render(_: WrappedLogger, __: str, event: EventDict) -> str:
    try:
        return _encode(event).decode()
    except (TypeError, ValueError, RecursionError):
        return _encode({key: _plain(value) for key, value in event.items()}).decode()


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates are no JSON


def _inert(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Spell control characters out: a log line must not drive the terminal that shows it."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], value)
    return event
