"""The log against a model: any order of appends, reads, settlements, added and removed sinks."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pipeline.ids import id_run
from pipeline.log import segment as segment_module
from pipeline.log.log import Log
from pipeline.record import ERROR, INFO, Part, Record
from tests.pipeline.support import frame, record, segments, share

SINKS = ("all", "errors", "optional")
LEAST = {"all": 0, "errors": ERROR, "optional": 0}


class LogMachine(RuleBasedStateMachine):
    """Sinks with a share of some frames, one of them by severity, each at its own pace.

    Segments hold four frames, so that a short run fills and empties many.
    """

    def __init__(self) -> None:
        super().__init__()
        self._usual = segment_module.FRAMES_PER_SEGMENT
        segment_module.FRAMES_PER_SEGMENT = 4

    def teardown(self) -> None:
        segment_module.FRAMES_PER_SEGMENT = self._usual

    @initialize()
    def begin(self) -> None:
        self.log = Log(log_id="log")
        self.cursors = {sink: self.log.cursor(sink) for sink in SINKS}
        self.appended: dict[str, deque[tuple[int, list[str]]]] = {s: deque() for s in SINKS}
        self.held: dict[str, list[Part]] = {sink: [] for sink in SINKS}
        self.accepted = dict.fromkeys(SINKS, 0)
        self.position = 0

    @rule(
        severities=st.lists(st.sampled_from([INFO, ERROR]), min_size=1, max_size=6),
        sinks=st.sets(st.sampled_from(SINKS), min_size=1),
        times=st.sampled_from([1, 1, 1, 4, 9]),
    )
    def append(self, severities: list[int], sinks: set[str], times: int) -> None:
        of = [
            record(f"{self.position}/{index}", severity=severity)
            for index, severity in enumerate(severities)
        ]
        wanting = [s for s in sorted(sinks) if any(r.severity >= LEAST[s] for r in of)]
        if not wanting:
            return
        for _ in range(times):
            shares = [
                share(of, sink=s, min_severity=LEAST[s], required=s != "optional") for s in wanting
            ]
            one = frame(of, *shares, id_base=self.position * 10 + 1)
            self.log.append(one)
            assert one.position == self.position
            for sink in wanting:
                passing = [r.message for r in of if r.severity >= LEAST[sink]]
                self.appended[sink].append((self.position, passing))
                self.accepted[sink] += len(passing)
            self.position += 1

    @rule(sink=st.sampled_from(SINKS), times=st.sampled_from([1, 1, 3, 20]))
    def read(self, sink: str, times: int) -> None:
        for _ in range(times):
            got = self.log.read(self.cursors[sink])
            if got is None:
                assert not self.appended[sink]
                return
            one, owed = got
            position, messages = self.appended[sink].popleft()
            assert (one.position, owed.sink) == (position, sink)
            read: list[Record] = one.read(owed.min_severity)
            assert [r.message for r in read] == messages
            assert {r.id for r in read} <= set(id_run(one.id_base, one.count))
            self.held[sink].append(
                Part.of_records(one, read, nbytes=owed.nbytes, held_bytes=owed.nbytes)
            )

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), times=st.sampled_from([1, 1, 3, 20]))
    def settle(self, data: st.DataObject, times: int) -> None:
        """Parts in any order, some of them in two pieces."""
        sink = data.draw(st.sampled_from([s for s in SINKS if self.held[s]]))
        held = self.held[sink]
        for _ in range(min(times, len(held))):
            index = data.draw(st.integers(0, len(held) - 1)) if times == 1 else 0
            part = held.pop(index)
            if part.count > 1 and times == 1:
                head, rest = part.split(data.draw(st.integers(1, part.count - 1)))
                done = self.log.settle(sink, [rest])
                assert done == []
                part = head
            done = self.log.settle(sink, [part])
            assert [one for one, _ in done] == ([part.frame] if sink != "optional" else [])

    @invariant()
    def cursors_count_what_is_unread(self) -> None:
        for sink, cursor in self.cursors.items():
            waiting = self.appended[sink]
            assert cursor.unread_frames == len(waiting)
            assert cursor.unread_records == sum(len(messages) for _, messages in waiting)
            assert sum(cursor.unread_tenants.values()) == cursor.unread_records
            head = cursor.head
            assert (head.position if head else None) == (waiting[0][0] if waiting else None)

    @invariant()
    def the_chain_keeps_what_is_owed_and_little_else(self) -> None:
        owed = {position for waiting in self.appended.values() for position, _ in waiting}
        owed |= {part.frame.position for held in self.held.values() for part in held}
        with self.log.lock:
            assert [one.position for one in self.log.frames()] == sorted(owed)
        *sealed, last = segments(self.log)
        assert all(segment.unsettled > 0 for segment in sealed)
        assert sum(len(segment.frames) for segment in sealed) <= 2 * len(owed)
        assert last.unsettled <= len(last.frames)


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
