"""Objects, arrays, lines and text; content types and what they are told."""

from __future__ import annotations

import json

import pytest

from ingest.wire.decode import Limits
from ingest.wire.errors import RequestError
from ingest.wire.formats import Format, format_of
from tests.ingest.bodies import LIMITS, lines, take


def messages(body: bytes | str, format: Format = Format.JSON) -> list[str]:
    decoded = take(body, format=format)
    assert decoded.rejections == []
    return [record.message for record in decoded.records.get("default", [])]


def indexes(body: bytes | str, format: Format = Format.LINES) -> list[int]:
    decoded = take(body, format=format)
    assert decoded.rejections == []
    return decoded.indexes["default"]


A, B = '{"message":"a"}', '{"message":"b"}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (A, ["a"]),
        (f"  {A}\n", ["a"]),
        (f"{A}\n{B}", ["a", "b"]),
        (f"{A}\r\n{B}\r\n", ["a", "b"]),
        (f"\n\n{A}\n  \n\t\n{B}\n\n", ["a", "b"]),
        (f"[{A},{B}]", ["a", "b"]),
        (f" [ {A} , {B} ] ", ["a", "b"]),
        (f"[\n{A},\n{B}\n]", ["a", "b"]),
        ("\ufeff" + A, ["a"]),
        ("\ufeff" + f"[{A}]", ["a"]),
        ('{\n "message":\n "a"\n}', ["a"]),
        ("", []),
        ("\n \r\n", []),
        ("[]", []),
        (" [ ] ", []),
    ],
)
def test_json_in_all_its_layouts(body: str, expected: list[str]) -> None:
    assert messages(body) == expected


def test_lines_are_counted_from_zero_with_the_blank_ones() -> None:
    assert indexes(f"{A}\n\n{B}") == [0, 2]
    assert indexes(f"{A}\n{B}\n") == [0, 1]
    decoded = take(f"{A}\n\n{{bad\n{B}", format=Format.LINES)
    assert [entry.index for entry in decoded.rejections] == [2]


def test_a_broken_first_line_does_not_make_one_object_of_all() -> None:
    decoded = take(f"{{bad\n{A}\n{B}")
    assert [entry.index for entry in decoded.rejections] == [0]
    assert [record.message for record in decoded.records["default"]] == ["a", "b"]


@pytest.mark.parametrize("body", ["[", f"[{A}", f"[{A}]x", f"[{A}]]", f'[{A}, "'])
def test_an_array_whose_brackets_do_not_match_is_no_array(body: str) -> None:
    with pytest.raises(RequestError) as refused:
        take(body)
    assert (refused.value.status, refused.value.code) == (400, "malformed_json")
    assert refused.value.detail.startswith("JSON is malformed: ")


def test_an_array_may_be_broken_inside_an_item() -> None:
    decoded = take(f'[{A}, {{"a" "b"}}, {{"x": "],["}}, nope, {B}]')
    assert [record.message for record in decoded.records["default"]] == ["a", "", "b"]
    assert [entry.index for entry in decoded.rejections] == [1, 3]


def test_a_large_broken_array_is_refused_whole() -> None:
    body = b"[" + b",".join([*lines(40_000), b"nope"]) + b"]"
    with pytest.raises(RequestError) as refused:
        take(body, limits=Limits(max_records=100_000, max_record_bytes=10**6, max_depth=64))
    assert refused.value.code == "malformed_json"
    assert refused.value.detail.startswith("JSON is malformed: ")


def test_text_is_a_record_a_line() -> None:
    body = b'first\r\n\n\xffsecond "x"\\\x00\n\xc3\xa4\x1b[31m\n'
    decoded = take(body, format=Format.TEXT)
    records = decoded.records["default"]
    expected = ["first", '\\xffsecond "x"\\\\x00', "ä\x1b[31m"]
    assert [record.message for record in records] == expected
    assert [json.loads(record.payload) for record in records] == [
        {"message": line} for line in expected
    ]
    assert decoded.indexes["default"] == [0, 2, 3]
    assert {record.severity for record in records} == {9}


def test_a_long_line_of_text_is_refused_alone() -> None:
    body = b"a\n" + b"x" * (LIMITS.max_record_bytes + 1) + b"\nb"
    decoded = take(body, format=Format.TEXT)
    assert [record.message for record in decoded.records["default"]] == ["a", "b"]
    assert [(entry.index, entry.code) for entry in decoded.rejections] == [(1, "record_too_large")]


@pytest.mark.parametrize("format", [Format.JSON, Format.LINES, Format.TEXT])
def test_more_records_than_allowed(format: Format) -> None:
    limits = Limits(max_records=10, max_record_bytes=1000, max_depth=64)
    assert len(take(b"\n".join(lines(10)), format=format, limits=limits).records["default"]) == 10
    with pytest.raises(RequestError) as refused:
        take(b"\n".join(lines(11)), format=format, limits=limits)
    assert (refused.value.status, refused.value.extra) == (413, {"limit": "max_records=10"})


@pytest.mark.parametrize(
    ("content_type", "format"),
    [
        ("application/json", Format.JSON),
        ("Application/JSON; charset=UTF-8", Format.JSON),
        ('application/json;charset="utf-8"', Format.JSON),
        ("application/vnd.api+json", Format.JSON),
        ("application/x-ndjson", Format.LINES),
        ("application/jsonl", Format.LINES),
        ("text/plain", Format.TEXT),
        ("text/plain; charset=us-ascii", Format.TEXT),
    ],
)
def test_content_types(content_type: str, format: Format) -> None:
    assert format_of(content_type, text=True) is format


@pytest.mark.parametrize(
    ("content_type", "text", "hint"),
    [
        ("", True, "--data-binary"),
        ("application/x-www-form-urlencoded", True, "-H 'Content-Type: text/plain'"),
        ("application/x-www-form-urlencoded", False, "-H 'Content-Type: application/json'"),
        ("multipart/form-data; boundary=x", True, "--data-binary"),
        ("text/plain", False, "Content-Type: application/json"),
        ("image/png", True, "application/x-ndjson"),
        ("application/json; charset=utf-16", True, "UTF-8"),
        (";;;=", True, "--data-binary"),
    ],
)
def test_other_content_types_are_told_what_to_send(
    content_type: str, text: bool, hint: str
) -> None:
    with pytest.raises(RequestError) as refused:
        format_of(content_type, text=text)
    assert refused.value.status == 415
    assert hint in refused.value.detail


def test_tenants() -> None:
    body = "\n".join(
        [A, '{"tenant":"acme","message":"c"}', '{"tenant":"default","message":"d"}', "{bad", B]
    )
    own = take(body)
    assert [record.message for record in own.records["default"]] == ["a", "d", "b"]
    assert [(entry.index, entry.code) for entry in own.rejections] == [
        (1, "wrong_tenant"),
        (3, "malformed_json"),
    ]
    anyone = take(body, any_tenant=True)
    assert {name: [r.message for r in rs] for name, rs in anyone.records.items()} == {
        "default": ["a", "d", "b"],
        "acme": ["c"],
    }
    assert anyone.indexes == {"default": [0, 2, 4], "acme": [1]}


@pytest.mark.parametrize("name", ["../../x", "UPPER", "a b", "x" * 64, "ä", "a\n"])
def test_a_tenant_is_a_slug(name: str) -> None:
    decoded = take(json.dumps({"tenant": name}), any_tenant=True)
    assert [entry.code for entry in decoded.rejections] == ["bad_value"]


def test_an_escaped_key_is_the_same_key() -> None:
    decoded = take(r'{"\u0074enant": "acme", "\u006dessage": "m"}')
    assert [entry.code for entry in decoded.rejections] == ["wrong_tenant"]
