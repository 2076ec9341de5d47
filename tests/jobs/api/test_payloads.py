"""Payloads by their schema: what is wrong where, in bounded time, and nothing is fetched."""

from __future__ import annotations

import socket

import pytest

from jobs import payloads
from jobs.payloads import DRAFT, MAX_ERRORS, SchemaError, payload_errors, schema_problem


def wrong(schema, payload) -> list[tuple[str, str]]:
    payloads._compiled.clear()
    return [(error.pointer, error.code) for error in payload_errors(1, schema, payload)]


@pytest.mark.parametrize(
    ("schema", "payload", "found"),
    [
        ({}, {"any": [1]}, []),
        ({"type": "object"}, 5, [("", "type")]),
        ({"required": ["a"]}, {}, [("/a", "required")]),
        ({"properties": {"a/b": {"type": "integer"}}}, {"a/b": "x"}, [("/a~1b", "type")]),
        ({"items": {"type": "integer"}}, [1, "x", 2.5], [("/1", "type"), ("/2", "type")]),
        ({"additionalProperties": False}, {"x": 1}, [("/x", "additionalProperties")]),
        (
            {"properties": {"a": True}, "patternProperties": {"^x-": True},
             "additionalProperties": {"type": "string"}},
            {"a": 1, "x-b": 2, "c": 3}, [("/c", "type")],
        ),
        ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_a": "x"}, [("/n_a", "type")]),
        ({"pattern": "^[a-z]+$"}, "A1", [("", "pattern")]),
        ({"pattern": "^[a-z]+$"}, 5, []),
        ({"uniqueItems": True}, [1, 1.0], [("", "uniqueItems")]),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}, {"a": True}], []),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [("", "uniqueItems")]),
        ({"$defs": {"n": {"type": "number"}}, "items": {"$ref": "#/$defs/n"}}, ["x"],
         [("/0", "type")]),
        ({"$schema": DRAFT, "type": "string"}, 5, [("", "type")]),
        ({"enum": [1, "a"]}, "b", [("", "enum")]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 4, [("", "anyOf")]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_place(schema, payload, found):
    assert wrong(schema, payload) == found


def test_no_more_mistakes_are_told_than_anybody_reads():
    assert len(wrong({"items": {"type": "string"}}, list(range(1000)))) == MAX_ERRORS


def test_what_was_sent_is_not_repeated_at_length():
    payloads._compiled.clear()
    (error,) = payload_errors(1, {"type": "integer"}, "x" * 100_000)
    assert len(error.detail) <= payloads.MAX_WORDS


def test_a_payload_takes_a_bounded_number_of_steps(monkeypatch):
    monkeypatch.setattr(payloads, "MAX_STEPS", 1_000)
    schema = {"items": {"items": {"type": "integer"}}}
    assert wrong(schema, [[1] * 10] * 10) == []
    assert wrong(schema, [[1] * 100] * 100) == [("", "too_complex")]


def test_a_schema_that_doubles_with_each_level_is_cut_off(monkeypatch):
    monkeypatch.setattr(payloads, "MAX_STEPS", 5_000)
    node = {"$ref": "#/$defs/node"}
    schema = {"$defs": {"node": {"anyOf": [{"items": node}, {"items": node}], "type": "array"}},
              "$ref": "#/$defs/node"}  # fmt: skip
    deep: list = [5]
    for _ in range(18):
        deep = [deep]
    assert wrong(schema, deep) == [("", "too_complex")]


def test_many_items_are_told_apart_in_time_linear_in_them(monkeypatch):
    def compared(*_):
        raise AssertionError("two were compared")

    monkeypatch.setattr("jsonschema._utils.equal", compared)
    assert wrong({"uniqueItems": True}, [{"n": n} for n in range(20_000)]) == []


def test_a_number_too_large_to_reckon_with_is_no_error_of_the_server():
    assert wrong({"multipleOf": 0.5}, 10**4000) == [("", "unchecked")]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([], "JSON object"),
        ({"type": "nothing"}, "/type"),
        ({"pattern": "(?=a)"}, "RE2"),
        ({"items": {"pattern": "("}}, ""),
        ({"patternProperties": {"(?!x)": True}}, "RE2"),
        ({"patternProperties": {"x": True}, "unevaluatedProperties": False}, "unevaluated"),
        ({"$ref": "https://example.org/schema"}, "nothing is fetched"),
        ({"items": {"$ref": "#/$defs/none"}}, "not within this schema"),
        ({"$ref": "#"}, "without end"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema"),
        ({"$schema": 5}, "$schema"),
        ({"required": "a"}, "/required"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(schema, words):
    problem = schema_problem(schema)
    assert problem
    assert words in problem
    with pytest.raises(SchemaError):
        wrong(schema or {"$ref": "#"}, {})


@pytest.mark.parametrize(
    "schema",
    [{}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}, {"const": {"$schema": "x", "$ref": "y"}},
     {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},
     {"$id": "https://example.org/s", "$anchor": "top", "items": {"$ref": "#top"}}],
)  # fmt: skip
def test_a_schema_that_can_be_used_is(schema):
    assert schema_problem(schema) == ""


def test_nothing_is_fetched(monkeypatch):
    def connect(*_):
        raise AssertionError("it went out")

    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    for schema in ({"$ref": "http://127.0.0.1:1/x"}, {"$dynamicRef": "http://127.0.0.1:1/x"}):
        assert schema_problem(schema)


def test_a_schema_is_compiled_once_until_it_changes(monkeypatch):
    payloads._compiled.clear()
    made = []
    compile_ = payloads._compile

    def compiled(schema):
        made.append(schema)
        return compile_(schema)

    monkeypatch.setattr(payloads, "_compile", compiled)
    for _ in range(3):
        payload_errors(1, {"type": "object"}, {})  # equal, though not the same
    payload_errors(1, {"type": "array"}, [])
    payload_errors(2, {"type": "array"}, [])
    assert made == [{"type": "object"}, {"type": "array"}, {"type": "array"}]
