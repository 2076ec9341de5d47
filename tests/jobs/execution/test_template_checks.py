"""Mistakes in a step's templates are told when it is saved."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.execution.templatechecks import impossible, template_problems

SCHEMA = {
    "type": "object",
    "properties": {
        "user_id": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {"type": "object", "properties": {"street": {}}},
    },
    "additionalProperties": False,
}


def problems(**fields: Any) -> list[tuple[str, str]]:
    step: dict[str, Any] = {"path": "", "headers": {}, "body": None, "earlier": ()}
    return [(one.field, one.text) for one in template_problems(**step | fields)]


def test_what_is_right_has_no_problem() -> None:
    assert not problems(
        path="/users/{payload.user_id}?full=true",
        headers={"X-User": "{payload.user_id}", "Content-Type": "application/vnd.api+json"},
        body={"street": "{payload.address.street}", "face": "{steps.face.result.score}"},
        earlier=["face"],
        schema=SCHEMA,
    )
    assert not problems()


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"path": "users"}, "path", "must begin with a slash"),
        ({"path": "/a#b"}, "path", "a fragment is never sent"),
        ({"path": "/a/../b"}, "path", "holds . or .."),
        ({"path": "/a\n"}, "path", "control characters"),
        ({"path": 3}, "path", "is not a text"),
        ({"path": "/{payload.x"}, "path", "has a lone {"),
        ({"headers": []}, "headers", "must be an object"),
        ({"headers": {"a b": "x"}}, "headers", "is no name of a header"),
        ({"headers": {"X": 3}}, "headers", "has X with what is not a text"),
        ({"headers": {"X": "a\nb"}}, "headers", "has X with characters"),
        ({"headers": {"X-A": "", "x-a": ""}}, "headers", "has x-a twice"),
        ({"headers": {"Idempotency-Key": "x"}}, "headers", "which Collector itself sets"),
        ({"headers": {"Host": "x"}}, "headers", "which Collector itself sets"),
        ({"body": {"a": "{steps.later.result}"}}, "body", "later is no step of an earlier stage"),
        ({"body": {"a": "{payload.usr_id}"}, "schema": SCHEMA}, "body", "has no usr_id"),
        ({"body": {"a": "{payload.user_id.x}"}, "schema": SCHEMA}, "body", "is no object"),
        ({"body": "x" * 70_000}, "body", "is longer than"),
        ({"body": {"a": 1}, "method": "HEAD"}, "body", "never sent with HEAD"),
        ({"body": ["{payload}"] * 101}, "body", "more than 100 references"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes(fields: dict[str, Any], field: str, text: str) -> None:
    found = problems(**fields)
    assert any(where == field and text in why for where, why in found), found


def test_problems_are_bounded() -> None:
    assert len(problems(body=[f"{{nothing{n}}}" for n in range(500)])) == 20


def test_deep_bodies_are_told() -> None:
    body: Any = []
    for _ in range(2_000):
        body = [body]
    assert problems(body=body)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (("user_id",), ""),
        (("tags", 3), ""),
        (("tags", "x"), "no object"),
        (("tags", 0, "x"), "no object"),
        (("address", "anything"), ""),
        (("address", 0), "no array"),
        (("missing",), "has no missing"),
    ],
)
def test_what_a_schema_lets_through(path: tuple[str | int, ...], why: str) -> None:
    assert (why in impossible(SCHEMA, path)) if why else impossible(SCHEMA, path) == ""


@pytest.mark.parametrize(
    "schema",
    [
        None, {}, True, [], {"$ref": "#/$defs/x", "additionalProperties": False},
        {"anyOf": [{}], "additionalProperties": False}, {"properties": 3}, {"type": 3},
        {"patternProperties": {"^x": {}}, "additionalProperties": False},
    ],
    ids=str,
)  # fmt: skip
def test_a_schema_that_is_unsure_forbids_nothing(schema: Any) -> None:
    assert impossible(schema, ("x", "y")) == ""
