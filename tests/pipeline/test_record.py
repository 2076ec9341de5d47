"""Records, parts and batches: encoding, weights, splitting."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.record import (
    LEVEL_NAMES,
    Batch,
    Part,
    Record,
    decode_records,
    encode_records,
    encoded_sizes,
    level_name,
    payload_bytes,
)
from tests.pipeline.support import frame, record, records, share, weight

a_record = st.builds(
    Record,
    timestamp_us=st.integers(-(1 << 63), (1 << 63) - 1),
    severity=st.integers(0, 24),
    service=st.text(max_size=20),
    message=st.text(max_size=200),
    trace_id=st.text(max_size=32),
    span_id=st.text(max_size=16),
    payload=st.binary(max_size=300),
)


def part(of: list[Record]) -> Part:
    nbytes = weight(of)
    return Part(
        frame=frame(of, share(of)), start=0, count=len(of), nbytes=nbytes, held_bytes=nbytes
    )


def batch(*parts: Part) -> Batch:
    return Batch(number=1, log_id="log", sink="a", reason="size", parts=list(parts))


@given(st.lists(a_record, max_size=40))
def test_records_survive_the_frame_and_weigh_what_the_payload_weighs(of: list[Record]) -> None:
    payload = encode_records(of)
    assert decode_records(payload) == of
    assert payload_bytes(payload, len(of)) == sum(encoded_sizes(of))


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
def test_the_header_of_a_payload_is_not_weighed(count: int) -> None:
    of = [record("x")] * count
    assert payload_bytes(encode_records(of), count) == count * weight([record("x")])


def test_a_damaged_payload_is_refused() -> None:
    payload = encode_records(records(3))
    with pytest.raises(msgspec.DecodeError):
        decode_records(payload[:-1])


def test_every_severity_has_the_name_of_its_range() -> None:
    assert [level_name(n) for n in range(1, 25)] == [
        name for name in LEVEL_NAMES.values() for _ in range(4)
    ]
    assert level_name(0) == "INFO"


@given(count=st.integers(2, 60), data=st.data())
def test_a_split_part_loses_no_record_no_byte_and_no_reserved_room(
    count: int, data: st.DataObject
) -> None:
    of = [record("x" * data.draw(st.integers(0, 300))) for _ in range(count)]
    index = data.draw(st.integers(1, count - 1))
    whole = part(of)
    whole.held_bytes += data.draw(st.integers(-20, 20))
    head, rest = whole.split(index)
    assert head.records + rest.records == whole.records
    assert [one.message for one in head.records] == [one.message for one in of[:index]]
    assert (head.start, head.count, rest.start, rest.count) == (0, index, index, count - index)
    assert (head.nbytes, rest.nbytes) == (weight(of[:index]), weight(of[index:]))
    assert head.held_bytes + rest.held_bytes == whole.held_bytes


def test_the_records_of_a_part_have_consecutive_ids_and_are_decoded_once() -> None:
    of = records(5)
    one = part(of)
    assert [r.id for r in one.records] == list(range(one.frame.id_base, one.frame.id_base + 5))
    assert one.records is one.records
    assert one.records[0] is not of[0]
    assert (one.type, one.tenant, one.request_id) == ("log", "t", "")
    assert (one.traceparent, one.received_us) == ("", 0)


def test_the_records_of_a_part_outlive_what_the_log_keeps_of_its_frame() -> None:
    of = records(3)
    one = part(of)
    one.frame.payload = b""
    assert [r.message for r in one.records] == [r.message for r in of]


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9).filter(lambda s: sum(s) > 1))
def test_the_halves_of_a_batch_are_the_batch_in_order(sizes: list[int]) -> None:
    whole = batch(*(part(records(size)) for size in sizes))
    messages = [one.message for one in whole.records]
    first, rest = (batch(*parts) for parts in whole.halves())
    assert [one.message for one in first.records + rest.records] == messages
    assert first.count == whole.count // 2
    assert first.nbytes + rest.nbytes == whole.nbytes


def test_the_parts_of_indexes_count_what_each_part_has_of_them() -> None:
    one, two, three = part(records(2)), part(records(3)), part(records(1))
    whole = batch(one, two, three)
    assert whole.parts_of([0, 2, 4, 5]) == {one: 1, two: 2, three: 1}
    assert whole.parts_of([]) == {}


def test_a_batch_is_named_by_its_log_and_number() -> None:
    assert batch(part(records(1))).batch_id == "log-1"
