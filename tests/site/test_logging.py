"""Log lines: JSON with ids, harmless on a terminal, silent about mere refusals."""

from __future__ import annotations

import json
import logging
import sys

import structlog

from collector_site.logging import OnlyFailures, formatter
from control.web.requestid import current_request_id


def line(message: str, *args: object, console: bool = False, **extra: object) -> str:
    record = logging.getLogger("some.module").makeRecord(
        "some.module", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )
    return formatter(console=console).format(record)


def test_a_line_is_one_json_object_with_its_extra_fields() -> None:
    text = line("stored %d", 3, sink="database", batch_id="log:7", worker_id="w-1")
    assert "\n" not in text
    body = json.loads(text)
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "event": "stored 3",
        "level": "warning",
        "logger": "some.module",
        "sink": "database",
        "batch_id": "log:7",
        "worker_id": "w-1",
    }


def test_a_line_of_a_request_carries_its_id() -> None:
    token = current_request_id.set("req-1")
    try:
        assert json.loads(line("x"))["request_id"] == "req-1"
        assert json.loads(line("x", request_id="other"))["request_id"] == "other"
    finally:
        current_request_id.reset(token)
    assert "request_id" not in json.loads(line("x"))


def test_what_a_worker_binds_is_on_every_line_of_its_batch() -> None:
    with structlog.contextvars.bound_contextvars(worker_id="w-2", batch_id="log:8"):
        body = json.loads(line("x"))
    assert (body["worker_id"], body["batch_id"]) == ("w-2", "log:8")
    assert "batch_id" not in json.loads(line("x"))


def test_an_exception_is_one_line_too() -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    text = formatter(console=False).format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


def test_values_json_does_not_know_are_spelt_out() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert json.loads(line("x", thing=object()))["thing"].startswith("<object")
    half = json.loads(line("x", half="a\ud800", n=1))
    assert (half["event"], half["half"], half["n"]) == ("x", "a\\ud800", 1)
    assert json.loads(line("x", loop=loop))["event"] == "x"


def test_a_line_cannot_drive_the_terminal() -> None:
    text = line("evil \x1b]0;title\x07 \x9b2J", console=True, service="\x1b[31m")
    stripped = text.replace("\x1b[0m", "")
    assert "\x1b]" not in stripped
    assert "\x07" not in stripped
    assert "\x9b" not in stripped
    assert "\x1b" not in json.dumps(json.loads(line("evil \x1b[2J")))


def test_refusals_are_no_failures() -> None:
    def of(status: int | None) -> bool:
        record = logging.LogRecord("django.request", logging.ERROR, "f", 1, "m", (), None)
        if status is not None:
            record.status_code = status
        return OnlyFailures().filter(record)

    assert of(500)
    assert of(None)
    assert not of(503)
    assert not of(429)
