"""What a usage means: hints, shedding by steps, refusals."""

from __future__ import annotations

import pytest

from pipeline.errors import Saturated
from pipeline.intake.admission import Admission
from pipeline.intake.marks import Marks
from pipeline.intake.router import Route
from pipeline.record import DEBUG, ERROR, INFO, TRACE, WARN
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, records, spec


def marks(**settings: object) -> Marks:
    return Marks.of(PipelineSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "below"),
    [(0.0, 0), (0.49, 0), (0.5, DEBUG), (0.59, DEBUG), (0.6, INFO), (0.7, WARN), (0.8, WARN)],
)
def test_levels_are_shed_in_equal_steps_up_to_the_refusals(usage: float, below: int) -> None:
    assert marks(shed_watermark=0.5, shed_below="WARN").shed_below(usage) == below


def test_a_mark_above_the_refusals_goes_up_to_the_capacity() -> None:
    high = marks(shed_watermark=0.9, shed_below="ERROR")
    assert [high.shed_below(u) for u in (0.89, 0.9, 0.95, 0.975, 1.0)] == [
        0,
        DEBUG,
        WARN,
        ERROR,
        ERROR,
    ]
    assert marks(shed_watermark=1.0).shed_below(1.0) == INFO


def test_nothing_is_shed_unless_a_mark_is_set() -> None:
    assert marks().shed_below(1.0) == 0


def test_usage_is_of_the_room_that_offers_may_fill(clock: FakeClock) -> None:
    settings = PipelineSettings(
        capacity_records=1_000, backlog_max_bytes=10_000, max_records=1, max_bytes=1
    )
    room = Admission(name="a", settings=settings, clock=clock)
    room.reserve(400, 0, tenant="t")
    assert room.usage() == pytest.approx(0.5)
    assert room.admissible_records == 800
    room.reserve(0, 8_000, tenant="t")
    assert room.usage() == pytest.approx(1.0), "the scarcer of both"


def test_the_hint_tells_what_is_left_of_the_scarcer_capacity(clock: FakeClock) -> None:
    settings = PipelineSettings(
        capacity_records=1_000, backlog_max_bytes=10_000, max_records=1, max_bytes=1
    )
    room = Admission(name="a", settings=settings, clock=clock)
    room.reserve(690, 0, tenant="t")
    assert not room.hinting
    room.reserve(20, 0, tenant="t")
    assert room.hinting
    clock.advance(2)
    room.release(10, 0, tenant="t")
    assert room.remaining() == (100, pytest.approx(20))  # 100 above the low mark at 5 a second
    room.reserve(0, 7_700, tenant="t")
    assert room.remaining()[0] == 27, "300 bytes of 11 a record"
    room.reserve(0, 300, tenant="t")
    assert room.remaining()[0] == 0
    room.release(300, 8_000, tenant="t")
    assert not room.hinting


def test_a_changed_mark_counts_at_once(clock: FakeClock) -> None:
    settings = {"capacity_records": 100, "max_records": 1}
    room = Admission(name="a", settings=PipelineSettings(**settings), clock=clock)  # type: ignore[arg-type]
    room.reserve(50, 0, tenant="t")
    assert room.shed_below == 0
    room.configure(
        PipelineSettings(**settings, shed_watermark=0.4, hint_watermark=0.3),  # type: ignore[arg-type]
        name="a",
    )
    assert (room.shed_below, room.hinting) == (DEBUG, True)


def test_the_lowest_levels_are_shed_before_they_are_appended(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(
        spec(sink, capacity_records=100, max_records=50, shed_watermark=0.5, shed_below="INFO")
    )
    rig.offer(records(50))
    mixed = [*records(2, severity=TRACE), *records(3, severity=DEBUG), *records(4, severity=INFO)]
    first = rig.offer(mixed)
    assert (first.count, first.shed) == (7, 2), "traces first"
    rig.offer(records(10))
    second = rig.offer(mixed)
    assert (second.count, second.shed) == (4, 5)
    row = rig.row()
    assert (row["accepted"], row["dropped"]) == (50 + 9 + 10 + 9, {"shed": 7})
    pipeline = rig.pipeline()
    assert (pipeline["shed"], pipeline["held_records"]) == (7, 71)
    told = [one for one in rig.signals.dropped if one.reason == "shed"]
    assert sum(len(one.messages) for one in told) == 7
    sink.let_go()
    assert rig.engine.drain(PATIENCE_S)
    assert rig.row()["stored"] == 71


def test_an_offer_of_which_all_is_shed_leaves_no_frame(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(
        spec(sink, capacity_records=100, max_records=50, shed_watermark=0.5, shed_below="DEBUG")
    )
    rig.offer(records(60))
    receipt = rig.offer(records(5, severity=TRACE))
    assert (receipt.count, receipt.shed, receipt.done) == (0, 5, True)
    assert rig.row()["dropped"] == {"shed": 5}
    assert rig.pipeline()["held_records"] == 60


def test_what_one_sink_sheds_another_may_take(rig: Rig) -> None:
    held, other = rig.held_sink(), rig.held_sink()
    rig.start(
        spec(held, capacity_records=100, max_records=50, shed_watermark=0.5, shed_below="INFO"),
        spec(other, key="b", capacity_records=1_000, max_records=50),
        spec(rig.held_sink(), key="c", route=Route(min_severity=ERROR), capacity_records=100,
             max_records=50, shed_watermark=0.5),
    )  # fmt: skip
    rig.offer(records(79))
    receipt = rig.offer([*records(3, severity=DEBUG), *records(1)])
    assert (receipt.count, receipt.shed) == (4, 0)
    assert rig.row("a")["dropped"] == {"shed": 3}
    assert rig.row("b")["dropped"] == {}
    assert rig.pipeline("b")["held_records"] == 83
    assert rig.pipeline("a")["held_records"] == 80
    held.let_go()
    other.let_go()
    assert rig.engine.drain(PATIENCE_S)
    assert (sum(held.stored.values()), sum(other.stored.values())) == (80, 83)
    assert set(held.stored) < set(other.stored)


def test_what_no_route_takes_is_unrouted_and_not_shed(rig: Rig) -> None:
    rig.start(
        spec(
            rig.held_sink(),
            route=Route(min_severity=INFO),
            capacity_records=100,
            max_records=50,
            shed_watermark=0.5,
            shed_below="WARN",
        )
    )
    rig.offer(records(79))
    receipt = rig.offer([*records(2, severity=DEBUG), *records(3), *records(1, severity=WARN)])
    assert (receipt.count, receipt.shed) == (3, 3)
    assert rig.row()["dropped"] == {"shed": 3}
    assert rig.row("(unrouted)")["dropped"] == {"unrouted": 2}


def test_above_the_mark_for_refusals_even_errors_are_refused(rig: Rig) -> None:
    rig.start(spec(rig.held_sink(), capacity_records=100, max_records=50, shed_watermark=0.5))
    rig.offer(records(80))
    with pytest.raises(Saturated):
        rig.offer(records(1, severity=ERROR))
