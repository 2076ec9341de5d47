"""What leaves the checker: results in frames, flips durably and in order, drops counted."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import msgspec
import pytest

from healthmon.checker.outbound import MOST_A_FRAME, MOST_RESULTS, Outbound
from healthmon.history.records import stored_of
from healthmon.probes.kind import Result
from healthmon.truth.changes import Change, change_of
from pipeline.errors import LogUnavailable

WAIT_S = 180.0


class Log:
    """As an engine to `Outbound`: keeps what is offered, or refuses it."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, bool, list[Any]]] = []
        self.refusing = False
        self.odd: Exception | None = None
        self.asked = threading.Event()
        self.taken = threading.Event()

    def offer(
        self, *, type: str, tenant: str, records: Any, durable: bool, sheddable: bool
    ) -> None:
        assert not sheddable, "a result has no level of its own"
        self.asked.set()
        if self.odd is not None:
            raise self.odd
        if self.refusing:
            raise LogUnavailable("the disk is full", retry_after_s=1.0)
        self.frames.append((type, durable, list(records)))
        self.taken.set()

    def changes(self) -> list[Change]:
        return [
            change_of(record.payload)
            for type, _, records in self.frames
            for record in records
            if type == "flip"
        ]


def _change(seq: int) -> Change:
    return Change(target_id=1, target="web", seq=seq, from_status="up", to_status="down", at_us=seq)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def dropped() -> Counter[str]:
    return Counter()


@pytest.fixture
def outbound(log: Log, dropped: Counter[str]) -> Any:
    made = Outbound(
        engine=lambda: log,  # type: ignore[arg-type, return-value]
        count_dropped=lambda reason, count: dropped.update({reason: count}),
    )
    yield made
    made.stop(WAIT_S)


def test_results_go_as_one_frame_with_what_was_found(outbound: Outbound, log: Log) -> None:
    outbound.result(7, "web", 123, Result(outcome="failed", error="refused", total_ms=1.5, code=0))
    outbound.result(8, "db", 124, Result(total_ms=2.5, dns_ms=0.25, code=200, address="::1"))
    outbound.flush_results()

    [(type, durable, records)] = log.frames
    assert (type, durable, len(records)) == ("probe", False, 2)
    assert [record.timestamp_us for record in records] == [123, 124]
    first, second = (stored_of(record.payload) for record in records)
    assert (first.target_id, first.outcome, first.error, first.total_ms) == (
        7,
        "failed",
        "refused",
        1.5,
    )
    assert (second.dns_ms, second.code, second.address, second.tls_ms) == (0.25, 200, "::1", -1)


def test_many_results_are_cut_into_frames(outbound: Outbound, log: Log) -> None:
    for one in range(MOST_A_FRAME + 1):
        outbound.result(one, "web", 1, Result())
    outbound.flush_results()
    assert [len(records) for _, _, records in log.frames] == [MOST_A_FRAME, 1]


def test_results_that_the_log_refuses_are_counted(
    outbound: Outbound, log: Log, dropped: Counter[str]
) -> None:
    log.refusing = True
    outbound.result(1, "web", 1, Result())
    outbound.flush_results()
    assert dropped == {"log_refused": 1}
    assert outbound.waiting_results == 0


def test_results_beyond_the_bound_are_counted(outbound: Outbound, dropped: Counter[str]) -> None:
    result = Result()
    for _ in range(MOST_RESULTS + 3):
        outbound.result(1, "web", 1, result)
    assert outbound.waiting_results == MOST_RESULTS
    assert dropped == {"checker_full": 3}
    outbound._results.clear()


def test_a_flip_is_logged_durably_without_being_waited_for(outbound: Outbound, log: Log) -> None:
    outbound.start()
    outbound.flip(_change(1))
    assert log.taken.wait(WAIT_S)
    assert log.frames[0][:2] == ("flip", True)
    assert log.changes() == [_change(1)]


def test_flips_wait_for_a_log_that_refuses_and_keep_their_order(
    outbound: Outbound, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmon.checker.outbound.RETRY_S", 0.01)
    log.refusing = True
    outbound.start()
    for seq in range(1, 4):
        outbound.flip(_change(seq))
    assert log.asked.wait(WAIT_S)
    assert outbound.waiting_flips == 3
    log.refusing = False
    assert log.taken.wait(WAIT_S)
    assert outbound.stop(WAIT_S)
    assert [change.seq for change in log.changes()] == [1, 2, 3]


def test_a_stop_hands_over_what_is_held(outbound: Outbound, log: Log) -> None:
    outbound.start()
    outbound.result(1, "web", 1, Result())
    outbound.flip(_change(1))
    assert outbound.stop(WAIT_S)
    assert sorted(type for type, _, _ in log.frames) == ["flip", "probe"]


def test_a_stop_while_the_log_refuses_says_what_is_left(
    outbound: Outbound, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmon.checker.outbound.RETRY_S", 0.01)
    log.refusing = True
    outbound.start()
    outbound.flip(_change(1))
    assert log.asked.wait(WAIT_S)
    assert not outbound.stop(WAIT_S)
    assert outbound.waiting_flips == 1


@pytest.mark.parametrize("text", ["half \udcff a pair", "a \0 in it", "grün und heil"])
def test_whatever_a_reason_holds_the_flip_is_logged(
    outbound: Outbound, log: Log, text: str
) -> None:
    outbound.start()
    outbound.flip(msgspec.structs.replace(_change(1), reason=text))
    outbound.flip(_change(2))
    assert outbound.stop(WAIT_S)
    assert [change.seq for change in log.changes()] == [1, 2]
    assert "half \\udcff a pair" in log.changes()[0].reason or "\udcff" not in text


def test_a_log_that_fails_oddly_ends_no_thread(
    outbound: Outbound, log: Log, dropped: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmon.checker.outbound.RETRY_S", 0.01)
    log.odd = OSError("odd")
    outbound.start()
    outbound.flip(_change(1))
    outbound.result(1, "web", 1, Result())
    assert log.asked.wait(WAIT_S)
    outbound.flush_results()
    log.odd = None
    assert log.taken.wait(WAIT_S)
    assert outbound.stop(WAIT_S)
    assert [change.seq for change in log.changes()] == [1]
