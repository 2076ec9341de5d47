"""The log and its segments: what has settled is let go of, whoever else lags."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pipeline.log.cursor import Cursor
from pipeline.log.frame import Frame
from pipeline.log.log import Log
from pipeline.log.segment import FRAMES_PER_SEGMENT, Segment
from pipeline.record import ERROR, INFO, Part
from tests.pipeline.support import frame, record, records, segments, share


def whole(of: Frame, sink: str) -> Part:
    owed = of.share_of(sink)
    assert owed is not None
    return Part(frame=of, start=0, count=owed.count, nbytes=owed.nbytes, held_bytes=owed.nbytes)


def append(log: Log, *sinks: str, count: int = 1) -> Frame:
    of = records(count)
    appended = frame(of, *(share(of, sink=sink) for sink in sinks))
    log.append(appended)
    return appended


def read(log: Log, cursor: Cursor) -> Frame:
    got = log.read(cursor)
    assert got is not None
    return got[0]


@pytest.fixture
def log() -> Log:
    log = Log(log_id="log")
    log.cursor("a")
    log.cursor("b")
    return log


def test_each_sink_reads_its_own_frames_in_order(log: Log) -> None:
    one, two, three = append(log, "a", "b"), append(log, "b"), append(log, "a")
    a, b = log.cursor("a"), log.cursor("b")
    assert [read(log, a), read(log, a)] == [one, three]
    assert [read(log, b), read(log, b)] == [one, two]
    assert log.read(a) is None
    assert log.read(b) is None
    assert [f.position for f in (one, two, three)] == [0, 1, 2]
    assert log.next_position == 3


def test_a_cursor_tells_what_it_has_not_read(log: Log) -> None:
    first = append(log, "a", count=3)
    append(log, "a", count=4)
    append(log, "b", count=50)
    a = log.cursor("a")
    assert (a.unread_frames, a.unread_records, a.head) == (2, 7, first)
    assert a.unread_tenants == {"t": 7}
    read(log, a)
    assert a.unread_tenants == {"t": 4}
    read(log, a)
    assert (a.unread_frames, a.unread_records, a.unread_bytes, a.head) == (0, 0, 0, None)
    assert a.unread_tenants == {}


def test_a_cursor_begins_where_the_log_ends_and_can_be_removed(log: Log) -> None:
    append(log, "a")
    late = log.cursor("late")
    assert log.read(late) is None
    seen = append(log, "late")
    assert read(log, late) is seen
    log.remove_cursor("late")
    assert log.cursor("late") is not late


def test_a_frame_is_read_with_its_ids_and_above_a_severity(log: Log) -> None:
    of = [record(str(i), severity=ERROR if i % 2 else INFO) for i in range(6)]
    one = frame(of, share(of, min_severity=ERROR), id_base=640)
    assert [(r.message, r.id) for r in one.read(ERROR)] == [("1", 641), ("3", 643), ("5", 645)]
    assert [r.id for r in one.read()] == list(range(640, 646))
    assert one.share_of("nobody") is None


def test_a_frame_settles_when_every_sink_has_its_share_and_tells_the_required_ones(
    log: Log,
) -> None:
    of = records(10)
    one = frame(of, share(of, sink="a"), share(of, sink="b", required=False))
    log.append(one)
    a = Part(frame=one, start=0, count=4, nbytes=1, held_bytes=1)
    rest = Part(frame=one, start=4, count=6, nbytes=1, held_bytes=1)
    assert log.settle("b", [whole(one, "b")]) == []
    assert log.settle("a", [a]) == []
    assert one.payload
    assert log.settle("a", [rest]) == [(one, one.shares[0])]
    assert (one.pending, one.payload) == (False, b"")


def test_settling_twice_or_for_a_stranger_is_a_bug_that_shows(log: Log) -> None:
    one = append(log, "a")
    part = whole(one, "a")
    log.settle("a", [part])
    with pytest.raises(AssertionError, match="settled twice"):
        log.settle("a", [part])
    with pytest.raises(AssertionError, match="owed nothing"):
        log.settle("b", [part])


def test_settled_segments_leave_the_chain_wherever_they_stand(log: Log) -> None:
    frames = [append(log, "a") for _ in range(4 * FRAMES_PER_SEGMENT)]
    assert len(segments(log)) == 4
    for start in (1, 0, 2):  # a middle one, the first, the one before the last
        first = start * FRAMES_PER_SEGMENT
        log.settle("a", [whole(f, "a") for f in frames[first : first + FRAMES_PER_SEGMENT]])
    assert len(segments(log)) == 1
    assert segments(log)[0].unsettled == FRAMES_PER_SEGMENT


def test_a_segment_that_settled_while_it_was_the_last_leaves_with_the_next_one(log: Log) -> None:
    for _ in range(10 * FRAMES_PER_SEGMENT):
        log.settle("a", [whole(append(log, "a"), "a")])
        assert len(segments(log)) == 1
    assert len(segments(log)[0].frames) <= FRAMES_PER_SEGMENT


def test_a_dead_sink_keeps_only_what_it_is_owed_while_a_million_records_pass(log: Log) -> None:
    a, b = log.cursor("a"), log.cursor("b")
    of = records(100)
    owed = [append(log, "a", "b")]
    for number in range(10_000):
        log.append(frame(of, share(of, sink="a"), id_base=1))
        if number == 5_000:
            owed.append(append(log, "a", "b"))
        if number % 50 == 0:
            while (got := log.read(a)) is not None:
                log.settle("a", [whole(got[0], "a")])
            assert len(segments(log)) <= 3
            assert sum(len(segment.frames) for segment in segments(log)) < 2 * FRAMES_PER_SEGMENT
    assert log.ledger.tallies()["a", "t"].accepted == 1_000_002
    assert [read(log, b) for _ in owed] == owed


def test_what_half_a_segment_owes_is_all_that_it_keeps(log: Log) -> None:
    """A sink owed one frame of each segment must not keep the other 255 alive."""
    a, b = log.cursor("a"), log.cursor("b")
    owed = []
    for number in range(20 * FRAMES_PER_SEGMENT):
        one = append(log, *("a", "b") if number % FRAMES_PER_SEGMENT == 77 else "a")
        owed += [one] * (len(one.shares) - 1)
        log.settle("a", [whole(read(log, a), "a")])
    kept = segments(log)
    assert len(kept) <= 21
    assert sum(len(segment.frames) for segment in kept[:-1]) <= 2 * len(owed)
    assert [read(log, b) for _ in owed] == owed
    assert log.read(b) is None


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_settled_segments_and_frames_are_freed_without_the_garbage_collector(log: Log) -> None:
    def alive(kind: type) -> int:
        return sum(type(thing) is kind for thing in gc.get_objects())

    frames_before, segments_before = alive(Frame), alive(Segment)
    for _ in range(50 * FRAMES_PER_SEGMENT):
        log.settle("a", [whole(read_one(log), "a")])
    assert alive(Segment) - segments_before <= 1
    assert alive(Frame) - frames_before <= FRAMES_PER_SEGMENT


def read_one(log: Log) -> Frame:
    append(log, "a")
    return read(log, log.cursor("a"))


def test_the_head_may_be_looked_at_in_the_middle_of_a_compaction(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers look at their cursor's head under their own pipeline's lock, not the log's."""
    frames = [append(log, "a") for _ in range(FRAMES_PER_SEGMENT - 1)]
    owed = append(log, "b")
    append(log, "a")  # another segment
    seen: list[Frame | None] = []
    compact = Segment.compact

    def looking(segment: Segment) -> None:
        seen.append(log._cursors["b"].head)
        compact(segment)
        seen.append(log._cursors["b"].head)

    monkeypatch.setattr(Segment, "compact", looking)
    log.settle("a", [whole(one, "a") for one in frames])
    assert set(map(id, seen)) == {id(owed)}
    assert len(seen) >= 2
