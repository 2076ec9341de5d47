"""What an operator may ask for, and what is refused before anything is probed."""

from __future__ import annotations

from typing import Any

import pytest

from healthmon.probes.http.options import HttpOptions
from healthmon.probes.http.plan import plan_for
from healthmon.probes.http.statuses import parse_statuses
from sinks.options import OptionsError, decode_options, describe_options, secret_names


def test_the_defaults_are_usable() -> None:
    options = decode_options(HttpOptions, {})
    assert options.conditions.statuses == frozenset(range(200, 300))
    assert not options.conditions.reads_body


def test_every_option_is_described_and_secrets_are_known() -> None:
    assert all(field.help for field in describe_options(HttpOptions))
    assert secret_names(HttpOptions) == {"password", "bearer_token", "secret_headers"}


@pytest.mark.parametrize(
    ("text", "codes"),
    [("200", {200}), ("200-202, 404", {200, 201, 202, 404}), ("100 - 101", {100, 101})],
)
def test_statuses(text: str, codes: set[int]) -> None:
    assert parse_statuses(text) == codes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expected_status": ""}, "expected_status: '' is neither"),
        ({"expected_status": "2xx"}, "expected_status: '2xx' is neither"),
        ({"expected_status": "299-200"}, "expected_status: the range 299-200 is empty"),
        ({"expected_status": "99"}, "expected_status"),
        ({"method": "TRACE"}, "method"),
        ({"headers": {"Bad Name": "x"}}, "headers: 'Bad Name' is not a header's name"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers: the value of X"),
        ({"headers": {"X": "日本"}}, "headers: the value of X"),
        ({"headers": {"Content-Length": "5"}}, "headers: Content-Length is set by the probe"),
        ({"headers": {f"X-{n}": "x" for n in range(51)}}, "headers: no more than 50"),
        ({"secret_headers": "nothing"}, "secret_headers: each line must be like Name: value"),
        ({"body": "x"}, "body: a GET request has none"),
        ({"method": "HEAD", "body_contains": ["x"]}, "method: an answer to HEAD has no body"),
        ({"username": "a:b"}, "username: has no colon"),
        ({"username": "a", "bearer_token": "t"}, "bearer_token: not together"),
        ({"body_regex": "("}, "body_regex: not a regular expression"),
        ({"body_regex": r"(?=x)"}, "body_regex: not a regular expression"),
        ({"body_contains": [""]}, "body_contains: an empty text"),
        ({"json_value": "5"}, "json_path: what should be compared"),
        ({"json_path": "$.a", "json_value": "5"}, "json_operator: exists compares nothing"),
        ({"json_path": "$.a", "json_operator": "<", "json_value": "x"}, "< needs a number"),
        ({"json_path": "$.a", "json_operator": "matches", "json_value": "["}, "not a regular"),
        ({"json_path": "a.b"}, "json_path: not a JSON path"),
        ({"json_path": "$[?match(@.a, '(a+)+$')]"}, "json_path: not a JSON path"),
        ({"json_path": "$[?search(@.a, 'x')]"}, "json_path: not a JSON path"),
        ({"json_path": "$[?@.a =~ /(a+)+x/]"}, "json_path: not a JSON path"),
        ({"json_path": "$..a..b"}, "json_path: has no more than one descent"),
        ({"json_path": "$[?@[?@.a]]"}, "and one filter"),
        ({"json_path": "$[?$[*] == 1]"}, "json_path: begins at the root ($) once"),
        ({"json_path": "$[*,*][*,*][*,*][*,*][*,*]"}, "json_path: has no more than 4 commas"),
        ({"response_headers": ["Bad Name: x"]}, "response_headers: 'Bad Name' is not"),
        ({"response_headers": ["!X: y"]}, "response_headers: !X takes no value"),
        ({"response_headers": ["X: ~("]}, "response_headers: not a regular expression"),
        ({"max_redirects": 21}, "max_redirects"),
        ({"cert_days_failed": -1}, "cert_days_failed"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)  # fmt: skip
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError) as refused:
        decode_options(HttpOptions, options)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"bearer_token": "s3cret\nx"},
        {"bearer_token": "s3cret", "password": "s3cret"},
        {"secret_headers": "s3cret"},
        {"secret_headers": "s3cret s3cret: x"},
        {"secret_headers": "X: s3cret\x00"},
        {"secret_headers": "X: s3cret", "headers": {f"X-{n}": "x" for n in range(50)}},
    ],
)
def test_no_refusal_repeats_a_secret(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError) as refused:
        decode_options(HttpOptions, options)
    assert "s3cret" not in str(refused.value)


def test_nothing_shows_the_secrets_of_a_plan() -> None:
    options = decode_options(HttpOptions, {"bearer_token": "s3cret", "secret_headers": "X: s3cret"})
    plan = plan_for("http://example.com/", options, "ours")
    assert b"s3cret" in plan.request
    assert "s3cret" not in repr(plan) + repr(options)


def test_a_plan_is_made_once_for_an_address() -> None:
    options = decode_options(HttpOptions, {})
    plan = plan_for("http://example.com/a", options, "ours")
    assert plan_for("http://example.com/a", options, "ours") is plan
    assert plan_for("http://example.com/b", options, "ours").request.startswith(b"GET /b ")
