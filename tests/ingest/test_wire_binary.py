"""MessagePack and protobuf bodies: the same records, bounds and reasons as with JSON."""

from __future__ import annotations

import json
import math
import re
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.wire import msgpack
from ingest.wire.decode import Limits
from ingest.wire.errors import RequestError
from ingest.wire.formats import Format, format_of
from ingest.wire.kinds import EVENTS
from ingest.wire.protoschema import MESSAGES, schema
from tests.ingest.bodies import ARRIVAL_US, LIMITS, one, take

pack = msgspec.msgpack.encode
SCHEMA = Path(__file__).resolve().parents[2] / "docs/schema/collector.proto"


def proto(*records: dict[str, Any]) -> bytes:
    """A LogBatch whose records have these fields."""
    batch = schema().log_batch()
    for fields in records:
        batch.records.add(**fields)
    return bytes(batch.SerializeToString())


def framed(*records: bytes) -> bytes:
    """A LogBatch of records that are encoded by hand."""
    assert all(len(record) < 128 for record in records)
    return b"".join(b"\x0a" + bytes([len(record)]) + record for record in records)


def codes(body: bytes, format: Format = Format.MSGPACK, **options: Any) -> dict[int, str]:
    return {entry.index: entry.code for entry in take(body, format=format, **options).rejections}


def messages(body: bytes, format: Format = Format.MSGPACK) -> list[str]:
    return [record.message for record in take(body, format=format).records.get("default", [])]


# --- content types


@pytest.mark.parametrize(
    ("content_type", "format"),
    [
        ("application/msgpack", Format.MSGPACK),
        ("application/x-msgpack", Format.MSGPACK),
        ("application/vnd.msgpack", Format.MSGPACK),
        ("application/x-protobuf", Format.PROTOBUF),
        ("application/protobuf; proto=collector.v1.LogBatch", Format.PROTOBUF),
    ],
)
def test_content_types(content_type: str, format: Format) -> None:
    assert format_of(content_type, text=True) is format


def test_protobuf_is_for_log_records_only() -> None:
    with pytest.raises(RequestError) as refused:
        format_of("application/x-protobuf", text=False)
    assert refused.value.status == 415
    assert refused.value.extra["supported"] == [
        "application/json",
        "application/x-ndjson",
        "application/msgpack",
    ]


def test_what_is_supported_names_both() -> None:
    with pytest.raises(RequestError) as refused:
        format_of("application/xml", text=True)
    assert "application/msgpack" in refused.value.detail
    assert "application/x-protobuf" in refused.value.detail


# --- the same record, whichever way it is sent


FIELDS = {
    "timestamp": "2026-01-31T09:30:00.250000Z",
    "level": "ERROR",
    "service": "checkout",
    "message": "payment refused: \"é\" \U0001f600",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
}  # fmt: skip


def test_a_record_is_the_same_in_all_formats() -> None:
    expected = one(FIELDS)
    packed = one(pack(FIELDS), format=Format.MSGPACK)
    fields = dict(FIELDS)
    moment = datetime.fromisoformat(fields.pop("timestamp"))
    us = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6
    encoded = one(proto({"timestamp_us": round(us), **fields}), format=Format.PROTOBUF)
    for other in (packed, encoded):
        assert msgspec.structs.replace(other, payload=b"") == msgspec.structs.replace(
            expected, payload=b""
        )
    assert json.loads(packed.payload) == FIELDS
    assert json.loads(encoded.payload) == {**FIELDS, "timestamp": "2026-01-31T09:30:00.250000Z"}


def test_messagepack_serves_other_kinds_as_well() -> None:
    event = {"user_id": 7, "action": "login", "ip": "192.0.2.7"}
    record = one(pack([event]), format=Format.MSGPACK, kind=EVENTS)
    assert (record.message, json.loads(record.payload)) == ("login", event)


def test_a_severity_of_opentelemetry_counts_where_there_is_no_level() -> None:
    assert one(proto({"severity": 17}), format=Format.PROTOBUF).severity == 17
    assert one(proto({"severity": 17, "level": "WARN"}), format=Format.PROTOBUF).severity == 13


def test_an_empty_record_has_the_time_of_its_arrival() -> None:
    record = one(proto({}), format=Format.PROTOBUF)
    assert (record.timestamp_us, record.payload) == (ARRIVAL_US, b"{}")
    # Absent and 1970 are two things.
    assert one(proto({"timestamp_us": 0}), format=Format.PROTOBUF).timestamp_us == 0


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
more_fields = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=8).map("x_".__add__), json_values, max_size=6
)


def value_of(value: Any) -> Any:
    """A protobuf Value's constructor arguments."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"flag": value}
    if isinstance(value, int):
        return {"integer": value}
    if isinstance(value, float):
        return {"number": value}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list):
        return {"list": {"values": [value_of(item) for item in value]}}
    return {"object": {"fields": {key: value_of(item) for key, item in value.items()}}}


@given(more_fields)
@settings(deadline=None)
def test_what_is_kept_is_equal_as_a_json_value(fields: dict[str, Any]) -> None:
    sent = {"message": "m", **fields}
    assert json.loads(one(pack(sent), format=Format.MSGPACK).payload) == sent
    record = {"message": "m", "fields": {key: value_of(v) for key, v in fields.items()}}
    assert json.loads(one(proto(record), format=Format.PROTOBUF).payload) == sent


# --- MessagePack: layouts


A, B = pack({"message": "a"}), pack({"message": "b"})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (A, ["a"]),
        (A + B, ["a", "b"]),
        (b"\x92" + A + B, ["a", "b"]),
        (b"\xdc\x00\x02" + A + B, ["a", "b"]),
        (b"\xdd\x00\x00\x00\x02" + A + B, ["a", "b"]),
        (b"\x90", []),
    ],
)
def test_an_array_of_maps_or_maps_one_after_another(body: bytes, expected: list[str]) -> None:
    assert messages(body) == expected


@pytest.mark.parametrize("sizes", [(1,), (1, 300_000), (300_000, 1), (10, 5000), (200,) * 7])
@pytest.mark.parametrize("count", [1, 511, 512, 513, 1500])
def test_a_stream_is_split_whatever_the_sizes_of_its_maps(
    sizes: tuple[int, ...], count: int
) -> None:
    if max(sizes) > 100_000:
        count = min(count, 40)
    sent = [pack({"n": i, "message": "x" * sizes[i % len(sizes)]}) for i in range(count)]
    told: list[int] = []
    assert msgpack.split(b"".join(sent), told.append) == sent
    assert told[-1] == count


@pytest.mark.parametrize(
    "body",
    [
        b"\x92" + A,  # fewer than the header says
        b"\x91" + A + B,  # more
        A + B[:-1],
        A + b"\xc1" + B,
        b"\xdd\xff",
    ],
)
def test_a_body_whose_records_cannot_be_told_apart_is_refused_whole(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        take(body, format=Format.MSGPACK)
    assert (refused.value.status, refused.value.code) == (400, "malformed_msgpack")
    assert "nothing of it was stored" in refused.value.detail


def test_the_byte_that_is_wrong_is_told_in_a_long_stream() -> None:
    body = A * 1200 + b"\xc1"
    with pytest.raises(RequestError, match=rf"\(byte {len(body) - 1}\)"):
        take(body, format=Format.MSGPACK)


# --- MessagePack: one bad record costs only itself


def flat(value: bytes) -> bytes:
    """A map of one field, "k", whose value is encoded by hand."""
    return b"\x81\xa1k" + value


@pytest.mark.parametrize(
    ("piece", "code"),
    [
        (b"\xc0", "not_an_object"),
        (b"\x07", "not_an_object"),
        (b"\x90", "not_an_object"),
        (b"\xa1x", "not_an_object"),
        (b"\xc4\x01x", "not_an_object"),
        (flat(b"\xcb" + struct.pack(">d", math.nan)), "not_json"),
        (flat(b"\xcb" + struct.pack(">d", math.inf)), "not_json"),
        (flat(b"\x91\xcb" + struct.pack(">d", -math.inf)), "not_json"),
        (flat(b"\xca" + struct.pack(">f", math.nan)), "not_json"),
        (flat(b"\xc4\x01x"), "not_json"),
        (flat(b"\xd4\x05x"), "not_json"),
        (b"\x81\x01\x02", "not_json"),
        (flat(b"\x81\x01\x02"), "not_json"),
        (b"\x81\xc4\x01k\x02", "not_json"),
        (b"\x81\x80\x02", "malformed_msgpack"),
        (flat(b"\xa1\xff"), "invalid_utf8"),
        (b"\x81\xa1\xff\x01", "invalid_utf8"),
        (flat(b"\x91\xa1\xff"), "invalid_utf8"),
        (flat(b"\xa1\0"), "nul_character"),
        (flat(b"\x91" * 70 + b"\xc0"), "too_deep"),
        (flat(b"\x91" * 100_000 + b"\xc0"), "malformed_msgpack"),
        (flat(b"\x91" * 500 + b"\xc0"), "too_deep"),
        (pack({"message": 7}), "wrong_type"),
        (pack({"timestamp": "yesterday"}), "bad_timestamp"),
        (pack({"tenant": "other"}), "wrong_tenant"),
        (pack({"message": "x" * 100_001}), "record_too_large"),
        # Small as it is sent, and large as it would be stored.
        (pack({"message": "\x01" * 50_000}), "record_too_large"),
    ],
)
def test_a_bad_map_is_named_and_its_neighbours_are_kept(piece: bytes, code: str) -> None:
    body = b"\x93" + A + piece + B
    if piece.count(b"\x91") > 1000:
        # Too deep to tell where it ends.
        with pytest.raises(RequestError):
            take(body, format=Format.MSGPACK)
        return
    assert messages(body) == ["a", "b"]
    assert codes(body) == {1: code}
    assert codes(A + piece + B) == {1: code}


def test_a_timestamp_of_messagepack_is_a_time() -> None:
    moment = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    record = one(pack({"timestamp": moment}), format=Format.MSGPACK)
    assert record.payload == b'{"timestamp":"2026-01-31T09:30:00Z"}'
    assert record.timestamp_us == round(moment.timestamp() * 1e6)


def test_depth_is_bounded_as_with_json() -> None:
    for depth, expected in ((LIMITS.max_depth - 1, {}), (LIMITS.max_depth, {0: "too_deep"})):
        nested: Any = []
        for _ in range(depth - 1):
            nested = [nested]
        text = json.dumps({"message": "m", "k": nested}).encode()
        assert codes(text, Format.JSON) == expected
        assert codes(pack(json.loads(text))) == expected


# --- protobuf


@pytest.mark.parametrize(
    ("shape", "depth", "expected"),
    [
        ("list", 9, {}),
        ("list", 10, {0: "too_deep"}),
        ("object", 9, {}),
        ("object", 10, {0: "too_deep"}),
        # The runtime itself reads a hundred messages in one another, two or three a level.
        ("list", 80, {0: "malformed_protobuf"}),
    ],
)
def test_depth_of_a_message(shape: str, depth: int, expected: dict[int, str]) -> None:
    limits = Limits(max_records=9, max_record_bytes=10_000, max_depth=10)
    nested: Any = 1
    for _ in range(depth):
        nested = [nested] if shape == "list" else {"x": nested}
    body = proto({"message": "m", "fields": {"k": value_of(nested)}})
    assert codes(body, Format.PROTOBUF, limits=limits) == expected


def test_thirty_objects_in_one_another_are_within_what_the_runtime_reads() -> None:
    nested: Any = 1
    for _ in range(30):
        nested = {"x": nested}
    body = proto({"message": "m", "fields": {"k": value_of(nested)}})
    assert codes(body, Format.PROTOBUF) == {}


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (b"\x2a\x01\xff", "malformed_protobuf"),  # message is not UTF-8
        (b"\x2a\x05x", "malformed_protobuf"),
        (b"\x07", "malformed_protobuf"),  # there is no such wire type
        (b"\x78\x01", "unknown_field"),
        (b"\x0a\x02\x10\x01", "unknown_field"),  # OTLP's field 1, which is a message
        (b"\x4a\x06\x0a\x01k\x12\x01\x78", "malformed_protobuf"),
        (b"\x4a\x07\x0a\x01k\x12\x02\x78\x01", "unknown_field"),
        (b"\x4a\x09\x0a\x01k\x12\x04\x2a\x02\x78\x01", "unknown_field"),
        (b"\x4a\x08\x0a\x03url\x12\x01\xff", "malformed_protobuf"),
        (b"\x2a\x01\0", "nul_character"),
        (b"\x09" + struct.pack("<q", 2**62), "bad_timestamp"),
        (b"\x09" + struct.pack("<q", -(2**62)), "bad_timestamp"),
        (b"\x42\x05other", "wrong_tenant"),
    ],
)
def test_a_bad_record_is_named_and_its_neighbours_are_kept(record: bytes, code: str) -> None:
    body = framed(b"\x2a\x01a", record, b"\x2a\x01b")
    assert messages(body, Format.PROTOBUF) == ["a", "b"]
    assert codes(body, Format.PROTOBUF) == {1: code}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_say(number: float) -> None:
    body = proto({"fields": {"k": {"number": number}}})
    assert codes(body, Format.PROTOBUF) == {0: "not_json"}


def test_a_field_that_is_sent_twice_is_refused_rather_than_chosen_from() -> None:
    body = proto({"message": "m", "fields": {"message": {"text": "another"}}})
    assert codes(body, Format.PROTOBUF) == {0: "duplicate_field"}
    record = one(proto({"fields": {"message": {"text": "m"}}}), format=Format.PROTOBUF)
    assert record.message == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"\x0a",
        b"\x0a\x80",
        b"\x0a\x05\x2a",
        b"\x0a\x01\x00\x10\x01",
        b"\x0a\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\xff\xff\xff\xff\x7f",
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        take(body, format=Format.PROTOBUF)
    assert (refused.value.status, refused.value.code) == (400, "malformed_protobuf")


def test_a_record_that_is_too_large_is_refused_alone() -> None:
    body = proto({"message": "a"}, {"message": "x" * 100_001}, {}, {"message": "b"})
    assert messages(body, Format.PROTOBUF) == ["a", "", "b"]
    assert codes(body, Format.PROTOBUF) == {1: "record_too_large"}


@pytest.mark.parametrize("format", [Format.MSGPACK, Format.PROTOBUF])
def test_what_is_too_large_is_not_decoded_to_find_out_what_else_is_wrong(format: Format) -> None:
    """Decoded, a body of small things is many times as large."""
    number = b"\x00" * 6 + b"\xf8\x7f"  # NaN
    if format is Format.MSGPACK:
        body = flat(b"\xdd\x00\x03\x00\x00" + b"\x80" * 196_607 + b"\xcb" + number[::-1])
    else:
        body = proto({"message": "x" * 100_001, "fields": {"k": {"number": math.nan}}})
    assert codes(body, format) == {0: "record_too_large"}


def test_records_of_every_length_of_length() -> None:
    sizes = (0, 1, 100, 127, 128, 16_383, 16_384, 90_000)
    body = proto(*({"message": "x" * size} for size in sizes))
    assert tuple(map(len, messages(body, Format.PROTOBUF))) == sizes


DECLARED = re.compile(r"^\s*((?:repeated |optional )?(?:map<\w+, )?\w+>?) (\w+) = (\d+);", re.M)


def test_the_published_schema_is_the_one_that_is_read() -> None:
    published: dict[str, tuple[tuple[str, str, int], ...]] = {}
    text = SCHEMA.read_text()
    assert f"package {schema().log_batch.DESCRIPTOR.file.package};" in text
    for name, content in re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.M | re.S):
        prefix = "oneof " if "oneof kind" in content else ""
        published[name] = tuple(
            (prefix + declaration, field, int(number))
            for declaration, field, number in DECLARED.findall(content)
        )
    assert published == MESSAGES


# --- both: bounds on the whole body, and many records


def body_of(count: int, format: Format, **fields: Any) -> bytes:
    records = [{"message": f"line {i}", **fields} for i in range(count)]
    return proto(*records) if format is Format.PROTOBUF else pack(records)


@pytest.mark.parametrize("format", [Format.MSGPACK, Format.PROTOBUF])
def test_more_records_than_allowed_are_refused_before_they_are_made(format: Format) -> None:
    limits = Limits(max_records=3, max_record_bytes=1000, max_depth=9)
    assert messages(body_of(3, format), format) == ["line 0", "line 1", "line 2"]
    with pytest.raises(RequestError) as refused:
        take(body_of(4, format), format=format, limits=limits)
    assert (refused.value.status, refused.value.code) == (413, "too_many_records")


def test_a_header_that_promises_billions_costs_nothing() -> None:
    with pytest.raises(RequestError) as refused:
        take(b"\xdd\xff\xff\xff\xff" + A, format=Format.MSGPACK)
    assert refused.value.code == "too_many_records"


def test_a_stream_of_nothing_is_counted_as_it_is_read() -> None:
    told: list[int] = []

    def check(count: int) -> None:
        told.append(count)
        if count > 2000:
            raise RequestError(413, "too_many_records", "")

    with pytest.raises(RequestError):
        msgpack.split(b"\xc0" * 10_000_000, check)
    assert max(told) < 3000


@pytest.mark.parametrize("format", [Format.MSGPACK, Format.PROTOBUF])
def test_many_records_with_bad_ones_among_them_keep_their_indexes(format: Format) -> None:
    bad = {0, 5, 511, 512, 700, 1299}
    records: list[dict[str, Any]] = [{"message": f"line {i}"} for i in range(1300)]
    for place in bad:  # of two kinds: found while it is written out, and after
        records[place] = {"tenant": "other"}
    if format is Format.MSGPACK:
        records[511] = {"k": math.nan}
        body = b"".join(map(pack, (r for i, r in enumerate(records) if i != 511)))
        before = b"".join(map(pack, records[:511]))
        nan = flat(b"\xcb" + struct.pack(">d", math.nan))
        body = before + nan + body[len(before) :]
    else:
        records[511] = {"fields": {"k": {"number": math.nan}}}
        body = proto(*records)
    decoded = take(body, format=format)
    assert [entry.index for entry in decoded.rejections] == sorted(bad)
    assert decoded.rejected == len(bad)
    assert decoded.indexes["default"] == [i for i in range(1300) if i not in bad]
    assert [record.message for record in decoded.records["default"]] == [
        f"line {i}" for i in range(1300) if i not in bad
    ]


def test_the_first_of_many_bad_records_are_the_ones_that_are_listed() -> None:
    decoded = take(b"\xdc\x01\x90" + b"\x07" * 400, format=Format.MSGPACK)
    assert decoded.rejected == 400
    assert [entry.index for entry in decoded.rejections] == list(range(100))


@given(st.binary(min_size=1, max_size=300), st.sampled_from([Format.MSGPACK, Format.PROTOBUF]))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_taken_or_refused_with_a_reason(body: bytes, format: Format) -> None:
    try:
        decoded = take(body, format=format)
    except RequestError as error:
        status = error.status
    else:
        status = 202
        kept = [record for records in decoded.records.values() for record in records]
        assert kept or decoded.rejected or body in (b"\x90", b"\xdc\0\0", b"\xdd\0\0\0\0")
        assert all(isinstance(json.loads(record.payload), dict) for record in kept)
    assert status in (202, 400, 413)
