"""What an answer is judged by."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from healthmon.probes.http.answer import AnswerReader
from healthmon.probes.http.conditions import judge
from healthmon.probes.http.options import HttpOptions
from sinks.options import decode_options
from tests.healthmon.probes.http.scripted import answer

REPORT = (
    b'{"status":"ok","load":0.5,"up":true,"checks":[{"name":"db","ms":12},{"name":"mq","ms":90}]}'
)


def _judged(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    headers: str = "",
    bound: int = 300_000,
    **options: Any,
) -> tuple[str, str]:
    reader = AnswerReader(max_body_bytes=bound)
    assert reader.feed(answer(body, status=status, headers=headers))
    return asyncio.run(judge(reader, decode_options(HttpOptions, options).conditions))


def test_the_status_comes_first() -> None:
    assert _judged(status="503 No", body_contains=["x"]) == (
        "failed",
        "the status is 503, which is not expected",
    )
    assert _judged(status="503 No", expected_status="500-599") == ("ok", "")


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ("X-Mode", ""),
        ("x-mode: fast", ""),
        ("X-Mode: =very fast", ""),
        ("X-Mode: ~^very", ""),
        ("!X-Absent", ""),
        ("X-Absent", "the answer has no header X-Absent"),
        ("X-Absent: a", "the answer has no header x-absent"),
        ("!X-Mode", "the answer has a header X-Mode"),
        ("X-Mode: slow", "the answer has a header X-Mode without 'slow'"),
        ("X-Mode: =fast", "the answer has a header X-Mode that is not 'fast'"),
        ("X-Mode: ~^fast", "the answer has a header X-Mode that does not match '^fast'"),
    ],
)
def test_headers(condition: str, error: str) -> None:
    found = _judged(headers="X-Mode: very fast\r\n", response_headers=[condition])
    assert found == ("failed" if error else "ok", error)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"body_contains": ["status", "db"]}, ""),
        ({"body_contains": ["status", "gone"]}, "the body does not contain 'gone'"),
        ({"body_not_contains": ["error"]}, ""),
        ({"body_not_contains": ["error", "mq"]}, "the body contains 'mq'"),
        ({"body_regex": r'"load":0\.\d'}, ""),
        ({"body_regex": r'"load":1'}, "the body does not match '\"load\":1'"),
    ],
)
def test_texts(options: dict[str, Any], error: str) -> None:
    assert _judged(REPORT, **options) == ("failed" if error else "ok", error)


def test_texts_are_found_in_other_charsets() -> None:
    latin = "gr\xfc\xdfe".encode("latin-1")
    html = "Content-Type: text/html; charset=ISO-8859-1\r\n"
    assert _judged(latin, headers=html, body_contains=["grüße"]) == ("ok", "")
    assert _judged(latin, body_contains=["grüße"])[0] == "failed"
    unknown = "Content-Type: text/html; charset=rot13\r\n"
    assert _judged(b"text", headers=unknown, body_contains=["text"]) == ("ok", "")


@pytest.mark.parametrize(
    ("path", "operator", "value", "error"),
    [
        ("$.status", "exists", "", ""),
        ("$.status", "==", "ok", ""),
        ("$.status", "==", '"ok"', ""),
        ("$.up", "==", "true", ""),
        ("$.up", "==", "1", "$.up in the body is true, not == 1"),
        ("$.load", "<", "0.9", ""),
        ("$.load", ">=", "0.9", "$.load in the body is 0.5, not >= 0.9"),
        ("$.status", "!=", "ok", "$.status in the body is 'ok', not != ok"),
        ("$.status", "contains", "o", ""),
        ("$.status", "matches", "^o.$", ""),
        ("$.checks", "contains", '{"name":"db","ms":12}', ""),
        ("$.gone", "exists", "", "there is nothing at $.gone in the body"),
        ("$.gone", "absent", "", ""),
        ("$.gone", "!=", "x", "there is nothing at $.gone in the body"),
        ("$.up", "absent", "", "there is something at $.up in the body"),
        ("$.checks[1].name", "==", "mq", ""),
        ("$.checks[7].name", "exists", "", "there is nothing at $.checks[7].name in the body"),
        ("$['status']", "==", "ok", ""),
        ("$.checks[*].ms", ">", "80", ""),
        ("$.checks[?@.ms > 80].name", "==", "mq", ""),
        ("$..name", "!=", "kv", ""),
        ("$..name", "!=", "mq", "$..name in the body is 'db', not != mq"),
        ("$.status.deeper", "exists", "", "there is nothing at $.status.deeper in the body"),
        ("$", "exists", "", ""),
    ],
)
def test_json(path: str, operator: str, value: str, error: str) -> None:
    found = _judged(REPORT, json_path=path, json_operator=operator, json_value=value)
    assert found == ("failed" if error else "ok", error)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON"),
        (b"<html>", "the body is not JSON"),
        (b'"\xff"', "the body is not JSON"),
        (b"[" * 100_000, "the body is JSON that is nested too deeply"),
    ],
)
def test_bodies_that_are_not_json(body: bytes, error: str) -> None:
    assert _judged(body, json_path="$.a") == ("failed", error)


@pytest.mark.parametrize("path", ["$..a", "$.*", "$[?@.a]"])
def test_deep_json_is_survived(path: str) -> None:
    depth = sys.getrecursionlimit() // 2
    outcome, error = _judged(b"[" * depth + b"]" * depth, json_path=path)
    assert outcome == "ok" or error.startswith(("there is nothing at", "the body is JSON that"))


def test_a_large_document_is_searched_beside_the_loop() -> None:
    body = b'{"items":[' + b",".join(b'{"id":%d}' % n for n in range(2000)) + b"]}"
    found = _judged(
        body, json_path="$.items[?@.id == 1999].id", json_operator="==", json_value="1999"
    )
    assert found == ("ok", "")


def test_a_catastrophic_expression_is_no_catastrophe() -> None:
    """Python's own `re` would take longer than the universe has for this one."""
    found = _judged(b"a" * 100_000, body_regex=r"^(a+)+$b")
    assert found[0] == "failed"


def test_what_is_shown_of_an_answer_is_short() -> None:
    body = b'{"a":"' + b"x" * 10_000 + b'"}'
    _, error = _judged(body, json_path="$.a", json_operator="==", json_value="y" * 1000)
    assert len(error) < 200
