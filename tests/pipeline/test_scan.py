"""Encoding and scanning: every sound frame is found, whatever stands between them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.log.disk import Disk
from pipeline.log.encoding import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    decode_header,
    decode_meta,
    encode_header,
    encode_meta,
    padded,
    shares_of,
)
from pipeline.log.frame import Frame, Share
from pipeline.log.scan import _CHUNK, FIRST_OFFSET, Damage, Found, scan
from pipeline.log.segmentfile import (
    VERSION,
    Piece,
    Place,
    encode_head,
    head_of,
    number_of,
    path_of,
    read_from,
)
from tests.pipeline.support import frame, records, share


def encoded(one: Frame, *, records_before: int = 0) -> bytes:
    meta = encode_meta(one)
    head = encode_header(
        one,
        meta_bytes=len(meta),
        meta_crc=zlib.crc32(meta),
        payload_crc=zlib.crc32(one.payload),
        records_before=records_before,
    )
    data = head + meta + one.payload
    return data.ljust(padded(len(data)), b"\0")


def a_frame(position: int, count: int = 2) -> Frame:
    of = records(count)
    one = frame(of, share(of), share(of, sink="b", required=False))
    one.position = position
    one.key = f"key-{position}"
    return one


def scanned(tmp_path: Path, data: bytes, *, start: int = 0) -> list[Found | Damage]:
    path = tmp_path / "file"
    path.write_bytes(data)
    disk = Disk()
    fd = disk.open(path)
    try:
        return list(scan(disk, fd, start=start, end=len(data)))
    finally:
        disk.close(fd)


def positions(found: list[Found | Damage]) -> list[int]:
    return [one.header.position for one in found if isinstance(one, Found)]


def damages(found: list[Found | Damage]) -> list[Damage]:
    return [one for one in found if isinstance(one, Damage)]


def test_a_frame_comes_back_as_it_was(tmp_path: Path) -> None:
    one = a_frame(7)
    (found,) = scanned(tmp_path, encoded(one, records_before=40))
    assert isinstance(found, Found)
    assert found.payload == one.payload
    header = found.header
    assert (header.position, header.records_before, header.count) == (7, 40, 2)
    assert (header.id_base, header.received_us) == (one.id_base, one.received_us)
    assert header.length == len(encoded(one))
    meta = found.meta
    assert (meta.type, meta.tenant, meta.key) == ("log", "t", "key-7")
    fields = ("sink", "count", "nbytes", "min_severity", "required")
    for new, old in zip(shares_of(meta), one.shares, strict=True):
        assert [getattr(new, name) for name in fields] == [getattr(old, name) for name in fields]
        assert (new.settled, new.unstored, new.start) == (0, 0, 0)


@pytest.mark.parametrize("spoilt", range(HEADER_BYTES))
def test_a_header_with_one_flipped_bit_is_none(spoilt: int) -> None:
    data = bytearray(encoded(a_frame(1)))
    assert decode_header(bytes(data)) is not None
    data[spoilt] ^= 0x10
    assert decode_header(bytes(data)) is None


def test_a_header_that_is_cut_off_or_asks_for_too_much_is_none() -> None:
    one = a_frame(1)
    data = encoded(one)
    assert decode_header(data[: HEADER_BYTES - 1]) is None
    assert decode_header(data, len(data)) is None
    huge = encode_header(
        one, meta_bytes=MAX_FRAME_BYTES, meta_crc=0, payload_crc=0, records_before=0
    )
    assert decode_header(huge) is None


@pytest.mark.parametrize(
    ("where", "why"),
    [("magic", "no frame begins here"), ("payload", "the checksum"), ("meta", "the checksum")],
)
def test_a_spoilt_frame_costs_neither_neighbour(tmp_path: Path, where: str, why: str) -> None:
    first, middle, last = (encoded(a_frame(n)) for n in range(3))
    at = {"magic": 0, "meta": HEADER_BYTES + 1, "payload": len(middle) - 12}[where]
    bad = bytearray(middle)
    bad[at] ^= 1
    found = scanned(tmp_path, first + bytes(bad) + last)
    assert positions(found) == [0, 2]
    (damage,) = damages(found)
    assert (damage.offset, damage.nbytes) == (len(first), len(middle))
    assert why in damage.why
    assert not damage.tail
    assert (damage.header is None) == (where == "magic")


def test_a_meta_that_fits_its_checksum_and_is_none_is_damage(tmp_path: Path) -> None:
    one = a_frame(3)
    meta = b"\xc1nonsense"
    head = encode_header(
        one,
        meta_bytes=len(meta),
        meta_crc=zlib.crc32(meta),
        payload_crc=zlib.crc32(one.payload),
        records_before=0,
    )
    data = head + meta + one.payload
    (damage,) = scanned(tmp_path, data.ljust(padded(len(data)), b"\0"))
    assert isinstance(damage, Damage)
    assert damage.tail
    assert damage.header is not None
    assert damage.header.count == 2


@pytest.mark.parametrize("keep", [1, 63, 64, 70, 120])
def test_a_torn_last_frame_is_the_tail(tmp_path: Path, keep: int) -> None:
    whole = encoded(a_frame(0))
    torn = encoded(a_frame(1, count=20))
    found = scanned(tmp_path, whole + torn[:keep] + bytes(5000))
    assert positions(found) == [0]
    (damage,) = damages(found)
    assert damage.tail
    assert damage.offset == len(whole)


def test_a_frame_that_the_file_cuts_off_is_told_with_its_header(tmp_path: Path) -> None:
    torn = encoded(a_frame(1, count=20))
    (damage,) = scanned(tmp_path, torn[:100])
    assert isinstance(damage, Damage)
    assert damage.tail
    assert damage.why == "the frame is cut off"
    assert damage.header is not None
    assert damage.header.count == 20


def test_two_spoilt_frames_in_a_row_are_two_damages_of_which_the_last_is_the_tail(
    tmp_path: Path,
) -> None:
    frames = [bytearray(encoded(a_frame(n))) for n in range(3)]
    for bad in frames[1:]:
        bad[-10] ^= 1
    found = scanned(tmp_path, b"".join(map(bytes, frames)))
    assert [damage.tail for damage in damages(found)] == [False, True]
    assert [damage.header.position for damage in damages(found) if damage.header] == [1, 2]


def test_a_spoilt_frame_before_rubbish_is_the_tail_only_if_nothing_follows(tmp_path: Path) -> None:
    bad, good = bytearray(encoded(a_frame(0))), encoded(a_frame(2))
    bad[-10] ^= 1
    rubbish = b"\x55" * 64
    for after, tail in ((b"", True), (good, False)):
        found = scanned(tmp_path, bytes(bad) + rubbish + after)
        assert [damage.tail for damage in damages(found)] == [tail, tail]


def test_room_that_was_never_used_is_nothing(tmp_path: Path) -> None:
    assert scanned(tmp_path, bytes(10_000)) == []
    assert scanned(tmp_path, b"") == []
    found = scanned(tmp_path, encoded(a_frame(0)) + bytes(3 * _CHUNK))
    assert positions(found) == [0]
    assert damages(found) == []


def test_a_frame_beyond_a_long_hole_is_found(tmp_path: Path) -> None:
    """Also where a piece that is read at once ends in the middle of its header."""
    for hole in (_CHUNK - 32, _CHUNK, _CHUNK + 24, 2 * _CHUNK - 8):
        found = scanned(tmp_path, bytes(hole) + encoded(a_frame(4)))
        assert positions(found) == [4], hole


def test_a_magic_word_in_a_payload_is_not_taken_for_a_frame(tmp_path: Path) -> None:
    liar = a_frame(0)
    liar.payload = b"CLfr" * 40
    bad = bytearray(encoded(liar))
    bad[0] ^= 1
    found = scanned(tmp_path, bytes(bad) + encoded(a_frame(1)))
    assert positions(found) == [1]


def test_a_frame_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    large = a_frame(0)
    large.payload = b"x" * (2 * _CHUNK)
    found = scanned(tmp_path, encoded(large) + encoded(a_frame(1)))
    assert positions(found) == [0, 1]


@given(
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 255)), max_size=6),
    cut=st.integers(0, 4000),
)
def test_whatever_is_flipped_or_cut_sound_frames_are_found_and_nothing_is_made_up(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    frames = [a_frame(n) for n in range(12)]
    pieces = [encoded(one) for one in frames]
    data = bytearray(b"".join(pieces))
    for at, bits in flips:
        data[at % len(data)] ^= bits
    data = data[: len(data) - cut % len(data)]
    offset, sound = 0, []
    for number, piece in enumerate(pieces):
        if bytes(data[offset : offset + len(piece)]) == piece:
            sound.append(number)
        offset += len(piece)
    found = scanned(tmp_path_factory.mktemp("scan"), bytes(data))
    got = positions(found)
    # Padding is under no checksum: a frame with spoilt padding is sound all the same.
    assert set(sound) <= set(got)
    assert got == sorted(set(got))
    for one in found:
        if isinstance(one, Found):
            assert one.payload == frames[one.header.position].payload


def test_a_segment_says_which_it_is_and_of_which_version() -> None:
    head = encode_head("ab" * 16, 12)
    assert len(head) == FIRST_OFFSET
    told = head_of(head)
    assert told is not None
    assert (told.version, told.log_id, told.number) == (VERSION, "ab" * 16, 12)
    assert head_of(b"\0" * FIRST_OFFSET) is None
    assert head_of(head[:-1]) is None
    assert head_of(head[:20] + b"\xff" + head[21:]) is None


def test_only_segment_files_have_a_number() -> None:
    assert number_of(path_of(Path("/x"), 12).name) == 12
    for name in (
        "lock",
        "segment-.seg",
        "segment-x.seg",
        "segment-1",
        "1.seg",
        "segment-\u0661.seg",
    ):
        assert number_of(name) is None


def test_files_are_read_in_order_from_a_place_and_one_that_is_gone_is_passed_over(
    tmp_path: Path,
) -> None:
    pieces = []
    for number in range(1, 5):
        data = encode_head("log", number) + encoded(a_frame(number))
        path = path_of(tmp_path, number)
        if number != 3:
            path.write_bytes(data)
        pieces.append(Piece(number, path, len(data)))
    pieces.append(Piece(5, path_of(tmp_path, 5), FIRST_OFFSET))

    def read(place: Place) -> Iterator[int]:
        for _, one in read_from(Disk(), pieces, place):
            assert isinstance(one, Found)
            yield one.header.position

    assert list(read(Place(0, 0))) == [1, 2, 4]
    assert list(read(Place(2, FIRST_OFFSET))) == [2, 4]
    assert list(read(Place(2, pieces[1].end))) == [4]


def test_what_is_no_meta_is_refused() -> None:
    data = encoded(a_frame(1))
    header = decode_header(data)
    assert header is not None
    meta = decode_meta(data[HEADER_BYTES : HEADER_BYTES + header.meta_bytes], header)
    assert meta is not None
    assert [one.sink for one in meta.shares] == ["a", "b"]
    assert Share(sink="a", count=4, nbytes=10, min_severity=0, required=True).weight(2) == 5
