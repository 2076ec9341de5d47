"""Good and bad records in one body: whichever way they are read, the outcome is the same."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.wire import decode, formats, screen
from ingest.wire.decode import Decoded, Limits
from ingest.wire.errors import RequestError
from ingest.wire.formats import Format
from ingest.wire.kinds import EVENTS, HEALTH, LOGS, Kind
from tests.ingest.bodies import take

LIMITS = Limits(max_records=500, max_record_bytes=300, max_depth=4)
GOOD = (
    b'{"message":"a"}',
    b'{"timestamp":"2026-01-31T09:30:00Z","message":"b","level":"warn"}',
    b'{"timestamp":"2026-01-31T09:30:00","message":"no offset"}',
    b'{"timestamp":1790000000,"message":"c"}',
    b'{"ts":"1790000000","message":"text of a number"}',
    b'{"message":"d","tenant":"default"}',
    b'{"message":"\\ud83d\\ude00 \\\\u0000","x":[1,{"y":"},{"}]}',
    '{"message":"é"}'.encode(),
    b'{"message":5,"msg":"e"}',
    b'{"service":"s","status":"up","action":"login","user":"u"}',
)
BAD = (
    b'{"timestamp":"yesterday","message":"a"}',
    b'{"timestamp":"9999-12-31T23:59:59-23:00","message":"a"}',
    b'{"timestamp":1e300,"message":"a"}',
    b'{"timestamp":true,"message":"a"}',
    b'{"message":{"an":"object"}}',
    b'{"message":"a","tenant":"other"}',
    b'{"message":"a","tenant":"No Tenant!"}',
    b'{"message":"a","service":"' + b"s" * 256 + b'"}',
    b'{"message":"\\u0000"}',
    b'{"x":"\\ud800"}',
    b'{"x":"\xff"}',
    b'{"x":[[[[1]]]]}',
    b'{"x":1e99999}',
    b'{"x":"' + b"a" * 300 + b'"}',
    b"{bad",
    b'{"a" 1}',
    b"null",
    b"5",
    b"  ",
    b"",
)
records = st.lists(st.sampled_from(GOOD) | st.sampled_from(BAD), max_size=80)
# A few bad ones among many: what a body is usually like.
rare = st.tuples(
    st.lists(st.sampled_from(GOOD), max_size=70),
    st.lists(st.sampled_from(BAD), min_size=1, max_size=2),
    st.lists(st.sampled_from(GOOD), max_size=70),
).map(lambda three: [line for some in three for line in some])


def one_by_one(lines: list[bytes], kind: Kind, *, any_tenant: bool) -> Decoded:
    """Each line as a body of its own, put together again."""
    whole = Decoded()
    for index, line in enumerate(lines):
        alone = take(line, format=Format.LINES, kind=kind, any_tenant=any_tenant, limits=LIMITS)
        for tenant, found in alone.records.items():
            whole.records.setdefault(tenant, []).extend(found)
            whole.indexes.setdefault(tenant, []).append(index)
        for entry in alone.rejections:
            whole.reject(index, entry.code, entry.detail)
    return whole


@pytest.mark.parametrize("kind", [LOGS, HEALTH, EVENTS], ids=lambda kind: kind.type)
@settings(max_examples=80, deadline=None)
@given(lines=records | rare, any_tenant=st.booleans())
def test_lines_are_what_they_are_alone(kind: Kind, lines: list[bytes], any_tenant: bool) -> None:
    together = take(
        b"\n".join(lines), format=Format.LINES, kind=kind, any_tenant=any_tenant, limits=LIMITS
    )
    assert together == one_by_one(lines, kind, any_tenant=any_tenant)


@settings(max_examples=80, deadline=None)
@given(lines=rare)
def test_the_sizes_of_chunks_and_groups_change_nothing(lines: list[bytes]) -> None:
    body = b"\n".join(lines)
    usual = take(body, format=Format.LINES, limits=LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "CHUNK_LINES", 7)
        patch.setattr(screen, "GROUP_LINES", 3)
        assert take(body, format=Format.LINES, limits=LIMITS) == usual


# What has no end of its own would take its neighbours along.
CLOSED = tuple(item for item in BAD if item.strip() and item != b"{bad")


@settings(max_examples=150, deadline=None)
@given(items=st.lists(st.sampled_from(GOOD) | st.sampled_from(CLOSED), min_size=2, max_size=60))
def test_items_of_an_array_are_what_they_are_as_lines(items: list[bytes]) -> None:
    array = take(b"[" + b",".join(items) + b"]", limits=LIMITS)
    assert array == take(b"\n".join(items), format=Format.LINES, limits=LIMITS)


def _by_hand(body: bytes) -> list[bytes] | None:
    """The items as brackets tell them, byte by byte; None where these do not match."""
    pieces, depth, start, quoted, position = [], 0, 1, False, 0
    while position < len(body):
        char = body[position : position + 1]
        if quoted:
            position += char == b"\\"
            quoted = char != b'"'
        elif char == b'"':
            quoted = True
        elif char in (b"[", b"{"):
            depth += 1
        elif char in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                break
        elif char == b"," and depth == 1:
            pieces.append(body[start:position].strip())
            start = position + 1
        position += 1
    if depth or position != len(body) - 1:
        return None
    return [*pieces, body[start:position].strip()]


_FRAGMENTS = st.sampled_from(
    (
        *GOOD,
        *CLOSED,
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b'"',
        b"\\",
        b'\\"',
        b"},{",
        b":",
        b" ",
        b"\xff",
        b'{"m":{"n":{"o":[[]]}}}',
        b'{"a":"}, {"}',
        b'"\\ud800"',
        b"[[",
        b"]}",
    )
)


@settings(max_examples=400, deadline=None)
@given(
    body=st.lists(_FRAGMENTS, max_size=14).map(b"".join)
    | st.lists(_FRAGMENTS, max_size=14).map(b",".join)
)
def test_a_broken_array_is_split_where_brackets_say(body: bytes) -> None:
    body = b"[" + body + b"]"
    try:
        msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    else:
        return  # nothing is broken
    expected = _by_hand(body)
    if expected is None:
        with pytest.raises(RequestError, match="JSON is malformed"):
            formats.split(body, Format.JSON)
    else:
        assert formats.split(body, Format.JSON) == (expected, range(len(expected)))


def test_many_broken_items_cost_no_more_than_the_first_few() -> None:
    items = [b'{"a" 1}', b'{"message":"good"}'] * 200
    decoded = take(b"[" + b",".join(items) + b"]")
    assert decoded.indexes["default"] == list(range(1, 400, 2))
    assert decoded.rejected == 200


def test_one_bad_record_is_read_with_patience_and_its_neighbours_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[bytes] = []

    def counted(line: bytes) -> object:
        read.append(line)
        return LOGS.decode(line)

    kind = Kind(
        type="log",
        scope="logs",
        text=True,
        levelled=True,
        decode=counted,
        build=LOGS.build,
        read=LOGS.read,
    )
    good = [json.dumps({"timestamp": "2026-01-31T09:30:00Z", "n": n}).encode() for n in range(500)]
    for bad in BAD[:18]:
        read.clear()
        decoded = take(
            b"\n".join([*good[:250], bad, *good[250:]]),
            format=Format.LINES,
            kind=kind,
            limits=Limits(max_records=600, max_record_bytes=300, max_depth=4),
        )
        assert [entry.index for entry in decoded.rejections] == [250]
        assert [record.payload for record in decoded.records["default"]] == good
        assert len(read) <= 503
