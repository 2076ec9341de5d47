"""Records that decode, or nearly do, and that a store would choke on: refused one by one."""

from __future__ import annotations

import json

import pytest

from ingest.wire.decode import Limits
from ingest.wire.formats import Format
from tests.ingest.bodies import lines, one, refusal, take

DEEP = '{"message": "m", "x": ' + "[" * 1000 + "]" * 1000 + "}"
DEEPER = '{"x": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}"
POISON = {
    "nul": (rb'{"message": "a\u0000b"}', "nul_character"),
    "nul in a field that nobody reads": (rb'{"x": ["\u0000"]}', "nul_character"),
    "nul in a key": (rb'{"\u0000": 1}', "nul_character"),
    "lone high surrogate": (rb'{"x": "\ud800"}', "lone_surrogate"),
    "lone low surrogate": (rb'{"x": "\udc00 "}', "lone_surrogate"),
    "two high surrogates": (rb'{"x": "\ud800\ud800"}', "lone_surrogate"),
    "surrogates the wrong way round": (rb'{"x": "\udc00\ud800"}', "lone_surrogate"),
    "high surrogate before another escape": (rb'{"x": "\ud83d\n\ude00"}', "lone_surrogate"),
    "invalid utf-8": (b'{"x": "\xff"}', "invalid_utf8"),
    "invalid utf-8 in a key": (b'{"\xc3\x28": 1}', "invalid_utf8"),
    "surrogate in utf-8": (b'{"x": "\xed\xa0\x80"}', "invalid_utf8"),
    "overlong nul": (b'{"x": "\xc0\x80"}', "invalid_utf8"),
    "latin-1": ('{"x": "é"}'.encode("latin-1"), "invalid_utf8"),
    "deep": (DEEP.encode(), "too_deep"),
    "deeper than the stack": (DEEPER.encode(), "too_deep"),
    "NaN": (b'{"x": NaN}', "malformed_json"),
    "Infinity": (b'{"x": -Infinity}', "malformed_json"),
    "exponent": (b'{"x": 1e99999}', "number_out_of_range"),
    "exponent at the end": (b'{"x": [1E+1000]}', "number_out_of_range"),
    "small exponent": (b'{"x": -1.5e-20000 }', "number_out_of_range"),
    "exponent with zeros before it": (b'{"x": 1e0001000}', "number_out_of_range"),
    "exponent beyond all counting": (b'{"x": 1e' + b"9" * 50 + b"}", "number_out_of_range"),
    "many digits": (b'{"x": ' + b"7" * 5000 + b"}", "number_out_of_range"),
    "many decimals": (b'{"x": 0.' + b"1" * 20_000 + b"}", "number_out_of_range"),
    "too large": (b'{"x": "' + b"a" * 100_000 + b'"}', "record_too_large"),
    "truncated": (b'{"x": ', "malformed_json"),
    "trailing comma": (b'{"x": 1,}', "malformed_json"),
    "control character": (b'{"x": "\x01"}', "malformed_json"),
    "two on a line": (b'{"x": 1} {"x": 2}', "malformed_json"),
    "number": (b"5", "not_an_object"),
    "text": (b'"abc"', "not_an_object"),
    "null": (b"null", "not_an_object"),
}


@pytest.mark.parametrize(("line", "code"), POISON.values(), ids=POISON.keys())
def test_poison_alone(line: bytes, code: str) -> None:
    assert refusal(line, format=Format.LINES) == code


@pytest.mark.parametrize(("line", "code"), POISON.values(), ids=POISON.keys())
def test_poison_costs_its_neighbours_nothing(line: bytes, code: str) -> None:
    good = lines(1200, nested={"a": [1, 2]})
    body = b"\n".join([*good[:700], line, *good[700:]])
    decoded = take(body, format=Format.LINES)
    assert [record.payload for record in decoded.records["default"]] == good
    assert [(entry.index, entry.code) for entry in decoded.rejections] == [(700, code)]
    said = decoded.rejections[0].detail
    assert said.startswith("JSON is malformed: ") == (code == "malformed_json")


@pytest.mark.parametrize("name", [name for name in POISON if name != "two on a line"])
def test_poison_in_an_array(name: str) -> None:
    line, code = POISON[name]
    good = lines(3)
    body = b"[" + b",".join([good[0], line, *good[1:]]) + b"]"
    if name == "truncated":
        line, body = b"{]", b"[" + b",".join([good[0], b'{"x": }', *good[1:]]) + b"]"
    decoded = take(body)
    assert [record.payload for record in decoded.records["default"]] == good
    assert [(entry.index, entry.code) for entry in decoded.rejections] == [(1, code)]


HARMLESS = [
    '{"x": "\\\\u0000 \\\\ud800"}',
    '{"x": "\\ud83d\\ude00\\ud83d\\ude00"}',
    '{"x": "\\u0001\\uffff\\ue000"}',
    '{"x": 1e999, "y": -1E-999}',
    '{"x": "1e99999", "trace": "12e4567890123456", "y": "1e5000,"}',
    '{"x": ' + "[" * 63 + "]" * 63 + "}",
    '{"x": "' + "[" * 500 + '\\"' + "{" * 500 + '"}',
    '{"x": [' + ",".join(["[]"] * 300) + "]}",
    '{"x": "' + "0" * 3000 + '"}',
    '{"x": "' + "a" * 90_000 + '"}',
    '{"x": 1e0005}',
    '{"x": "\x7f\u0080\u2028\ufeff"}',
]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_only_looks_like_poison_is_taken(line: str) -> None:
    assert json.loads(one(line).payload) == json.loads(line)
    decoded = take("\n".join([line] * 3), format=Format.LINES)
    assert len(decoded.records["default"]) == 3


def test_depth_is_counted_to_the_level() -> None:
    limits = Limits(max_records=10, max_record_bytes=1000, max_depth=4)
    assert one('{"x":[[[1]]]}', limits=limits).payload
    assert refusal('{"x":[[[[1]]]]}', limits=limits) == "too_deep"
    assert refusal('{"x":[[[{}]]]}', limits=limits) == "too_deep"


def test_lines_without_a_bracket_hide_no_depth() -> None:
    body = b"\n".join([b"null"] * 300 + [b'{"x":' + b"[" * 200 + b"]" * 200 + b"}"])
    decoded = take(body, format=Format.LINES)
    assert decoded.records == {}
    assert decoded.codes == {"not_an_object": 300, "too_deep": 1}


def test_errors_are_listed_up_to_a_hundred_and_counted_beyond() -> None:
    decoded = take(b"\n".join([b"{bad"] * 250 + lines(1)), format=Format.LINES)
    assert decoded.rejected == 250
    assert [entry.index for entry in decoded.rejections] == list(range(100))
    assert decoded.codes == {"malformed_json": 250}
    assert len(decoded.records["default"]) == 1
