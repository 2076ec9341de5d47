"""What the checker hears: pings, missing ones, and when it cannot tell; the clock is the test's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import OperationalError

from control.processes.identity import GONE
from control.processes.models import Process
from healthmon.heartbeats import feed as feeds
from healthmon.heartbeats.feed import Found, HeartbeatFeed
from healthmon.heartbeats.models import Ping
from healthmon.heartbeats.pings import DEGRADED, FAIL, START, SUCCESS
from healthmon.heartbeats.stamps import Stamps
from healthmon.heartbeats.store import Arrived, PingStore
from healthmon.targets.models import SLOTS, Target, slot_of
from pipeline.runtime.clock import FakeClock
from tests.healthmon.heartbeats.conftest import now_of

pytestmark = pytest.mark.django_db

Make = Callable[..., Target]
Beat = Callable[..., Process]


class Pinger:
    """Stores pings as the sink does, dated by the test's clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.store = PingStore()
        self.record_id = 1000

    def __call__(self, target: Target, kind: str = SUCCESS, exit_code: int | None = None) -> None:
        self.record_id += 1
        self.store.take(
            [
                Arrived(
                    record_id=self.record_id,
                    target_id=target.pk,
                    at=now_of(self.clock),
                    kind=kind,
                    exit_code=exit_code,
                )
            ]
        )


@pytest.fixture
def ping(clock: FakeClock) -> Pinger:
    return Pinger(clock)


@pytest.fixture
def feed(clock: FakeClock) -> HeartbeatFeed:
    return HeartbeatFeed(held=lambda: dict.fromkeys(range(SLOTS), 1), clock=clock)


def outcomes(found: list[Found]) -> list[str]:
    return [one.result.outcome for one in found]


def test_a_target_that_was_never_pinged_has_no_result(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock
) -> None:
    make_target()
    for _ in range(10):
        server()
        assert feed.poll() == []
        clock.advance(60.0)


def test_each_ping_is_told_of_once(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target()
    server()
    assert feed.poll() == []
    ping(target)
    found = feed.poll()
    assert [(one.target_id, one.result.outcome) for one in found] == [(target.pk, "ok")]
    assert found[0].at_us == clock.time_us()
    assert feed.poll() == []
    clock.advance(1.0)
    ping(target, FAIL, 4)
    clock.advance(0.5)
    ping(target, DEGRADED)
    clock.advance(0.5)
    ping(target)
    found = feed.poll()
    assert outcomes(found) == ["failed", "degraded", "ok"]
    assert found[0].result.error == "it ended with exit code 4"
    assert found[0].at_us < found[1].at_us < found[2].at_us
    assert feed.poll() == []


def test_a_ping_that_is_missing_is_a_failure_at_its_time(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server()
    ping(target)
    began = clock.time_us()
    feed.poll()
    clock.advance(89.0)
    server()
    assert feed.poll() == []
    clock.advance(3.0)
    server()
    (found,) = feed.poll()
    assert found.result.outcome == "failed"
    assert "no ping since" in found.result.error
    assert found.at_us == began + 90_000_000
    # It is told again at its own pace, and not with every look.
    assert feed.poll() == []
    clock.advance(91.0)
    server()
    assert outcomes(feed.poll()) == ["failed"]
    ping(target)
    assert outcomes(feed.poll()) == ["ok"]
    clock.advance(60.0)
    server()
    assert feed.poll() == []


def test_a_run_that_never_ends_is_a_failure(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 600})
    server()
    ping(target)
    clock.advance(100.0)
    ping(target, START)
    assert outcomes(feed.poll()) == ["ok"]
    clock.advance(599.0)
    server()
    assert feed.poll() == []
    clock.advance(2.0)
    server()
    (found,) = feed.poll()
    assert "has not ended within 600 s" in found.result.error
    clock.advance(10.0)
    ping(target)
    (found,) = feed.poll()
    assert (found.result.outcome, found.result.total_ms) == ("ok", 611_000.0)


def test_while_pings_wait_to_be_stored_nothing_is_missed(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server()
    ping(target)
    feed.poll()
    clock.advance(95.0)
    server(oldest_s=60.0)
    assert feed.poll() == []
    clock.advance(16.0)
    server(oldest_s=76.0)
    (found,) = feed.poll()
    assert found.result.outcome == "void"
    assert "pings wait in process here:1" in found.result.error
    clock.advance(20.0)
    server(oldest_s=96.0)
    assert feed.poll() == []
    # The sink has caught up: now it is known that there was none.
    clock.advance(5.0)
    server()
    assert outcomes(feed.poll()) == ["failed"]


def test_the_log_of_a_dead_server_may_hold_the_ping(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server(role="checker")
    dead = server()
    ping(target)
    feed.poll()
    clock.advance(100.0)
    Process.objects.filter(pk=dead.pk).update(
        stopped_at=dead.last_seen_at, exit_reason=f"{GONE}: its process is gone"
    )
    Process.objects.create(
        role="server", host="there", pid=2, log_id="new", started_at=now_of(clock) - timedelta(99),
        last_seen_at=now_of(clock), stats={"log_id": "new", "pipelines": []},
    )  # fmt: skip
    server(role="checker")
    assert feed.poll() == []
    clock.advance(16.0)
    Process.objects.filter(pid=2).update(last_seen_at=now_of(clock))
    server(role="checker")
    assert outcomes(feed.poll()) == ["void"]
    # Somebody delivered its log and closed its books.
    Process.objects.filter(pk=dead.pk).update(stats={"delivered": {}})
    clock.advance(3.0)
    assert outcomes(feed.poll()) == ["failed"]


@pytest.mark.parametrize("reason", ["stopped", "SIGTERM, drained", "its parent is gone, drained"])
def test_a_server_that_ended_in_order_holds_no_ping(
    reason: str, feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock,
    ping: Pinger,
) -> None:  # fmt: skip
    target = make_target(options={"grace_s": 30})
    server(role="checker")
    ended = server()
    ping(target)
    feed.poll()
    clock.advance(100.0)
    Process.objects.filter(pk=ended.pk).update(stopped_at=ended.last_seen_at, exit_reason=reason)
    Process.objects.create(
        role="server", host="there", pid=2, log_id="new", started_at=now_of(clock) - timedelta(99),
        last_seen_at=now_of(clock), stats={"log_id": "new", "pipelines": []},
    )  # fmt: skip
    clock.advance(16.0)
    Process.objects.filter(pid=2).update(last_seen_at=now_of(clock))
    server(role="checker")
    assert outcomes(feed.poll()) == ["failed"]


def test_while_no_server_could_take_a_ping_none_is_missed(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server()
    ping(target)
    feed.poll()
    clock.advance(300.0)
    assert feed.poll() == []
    clock.advance(16.0)
    (found,) = feed.poll()
    assert found.result.outcome == "void"
    assert "no server is there" in found.result.error
    # It comes back, and from then on the job has its grace.
    Process.objects.all().delete()
    server(started_at=now_of(clock))
    started = clock.time_us()
    clock.advance(29.0)
    server(started_at=now_of(clock) - timedelta(seconds=29))
    assert feed.poll() == []
    clock.advance(3.0)
    server(started_at=now_of(clock) - timedelta(seconds=32))
    (found,) = feed.poll()
    assert found.result.outcome == "failed"
    assert found.at_us == started + 30_000_000


def test_another_checker_takes_over_and_tells_what_is_true(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    up, failed, running = make_target("up"), make_target("failed"), make_target("running")
    never = make_target("never")
    server()
    ping(failed)
    ping(failed, FAIL, 1)
    ping(up)
    ping(running, START)
    found = {one.target_id: one.result.outcome for one in feed.poll()}
    assert found == {up.pk: "ok", failed.pk: "failed"}
    assert never.pk not in found


def test_only_held_slots_are_told_of(
    make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    targets = [make_target(f"t{n}") for n in range(20)]
    held = {slot_of(target.pk): 1 for target in targets[:7]}
    feed = HeartbeatFeed(held=lambda: held, clock=clock)
    server()
    for target in targets:
        ping(target)
    ours = {target.pk for target in targets if slot_of(target.pk) in held}
    assert {one.target_id for one in feed.poll()} == ours
    held |= dict.fromkeys(range(SLOTS), 1)
    assert {one.target_id for one in feed.poll()} == {one.pk for one in targets} - ours
    held.clear()
    clock.advance(1000.0)
    server()
    assert feed.poll() == []


def test_one_that_was_paused_has_its_grace_when_it_goes_on(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server()
    ping(target)
    feed.poll()
    target.paused = True
    target.save()
    clock.advance(600.0)
    server()
    assert feed.poll() == []
    target.paused = False
    target.save()
    clock.advance(3.0)
    server()
    assert outcomes(feed.poll()) == ["ok"]
    clock.advance(29.0)
    server()
    assert feed.poll() == []
    clock.advance(3.0)
    server()
    assert outcomes(feed.poll()) == ["failed"]


def test_a_longer_period_counts_at_once(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server()
    ping(target)
    feed.poll()
    clock.advance(80.0)
    target.interval_s = 3600
    target.save()
    clock.advance(60.0)
    server()
    assert feed.poll() == []


def test_a_ping_that_comes_late_does_not_turn_time_back(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target(options={"grace_s": 30})
    server()
    ping(target)
    feed.poll()
    clock.advance(95.0)
    server()
    (missed,) = feed.poll()
    # It had arrived before, in a log that was delivered only now.
    before = Arrived(
        record_id=ping.record_id + 1, target_id=target.pk, at=now_of(clock) - timedelta(seconds=60),
        kind=SUCCESS,
    )  # fmt: skip
    ping.store.take([before])
    (found,) = feed.poll()
    assert found.result.outcome == "ok"
    assert found.at_us == missed.at_us + 1


def test_a_poll_that_fails_loses_nothing(
    feed: HeartbeatFeed,
    make_target: Make,
    server: Beat,
    clock: FakeClock,
    ping: Pinger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = make_target()
    server()
    ping(target)

    def away(now: object) -> None:
        raise OperationalError("Connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(feeds, "read_delivery", away)
        with pytest.raises(OperationalError):
            feed.poll()
    assert outcomes(feed.poll()) == ["ok"]


def test_a_row_that_is_wrong_harms_no_other(
    feed: HeartbeatFeed, make_target: Make, server: Beat, ping: Pinger
) -> None:
    broken = make_target("broken", options={"cron": "every day"})
    good = make_target("good")
    server()
    ping(broken)
    ping(good)
    assert [one.target_id for one in feed.poll()] == [good.pk]


def test_quiet_polls_are_cheap(
    feed: HeartbeatFeed,
    make_target: Make,
    server: Beat,
    clock: FakeClock,
    ping: Pinger,
    django_assert_max_num_queries: Callable[..., object],
) -> None:
    for number in range(10):
        ping(make_target(f"t{number}"))
    server()
    feed.poll()
    clock.advance(1.0)
    with django_assert_max_num_queries(1):  # type: ignore[attr-defined]
        assert feed.poll() == []


def test_rows_that_are_gone_are_forgotten(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target()
    server()
    ping(target)
    feed.poll()
    target.delete()
    assert not Ping.objects.exists()
    clock.advance(600.0)
    server()
    assert feed.poll() == []


def test_a_slot_that_was_anothers_meanwhile_is_told_anew(
    make_target: Make, server: Beat, clock: FakeClock, ping: Pinger
) -> None:
    target = make_target()
    held = dict.fromkeys(range(SLOTS), 1)
    feed = HeartbeatFeed(held=lambda: held, clock=clock)
    server()
    ping(target, FAIL)
    assert outcomes(feed.poll()) == ["failed"]
    assert feed.poll() == []
    # Lost and taken again between two polls.
    held[slot_of(target.pk)] = 3
    assert outcomes(feed.poll()) == ["failed"]
    assert feed.poll() == []


@pytest.mark.parametrize("older_s", [2, 3600])
def test_a_change_with_an_older_stamp_is_seen(
    feed: HeartbeatFeed, make_target: Make, server: Beat, clock: FakeClock, ping: Pinger,
    older_s: int,
) -> None:  # fmt: skip
    """As one that was stamped before another's and committed after it."""
    target, _ = make_target("changed", options={"grace_s": 30}), make_target("newest")
    server()
    ping(target)
    feed.poll()
    older = target.updated_at - timedelta(seconds=older_s)
    Target.objects.filter(pk=target.pk).update(paused=True, updated_at=older)
    for _ in range(2):
        clock.advance(2.0)
        feed.poll()
    clock.advance(600.0)
    server()
    assert feed.poll() == []


def test_what_was_not_read_is_read_the_next_time(make_target: Make) -> None:
    make_target()
    stamps = Stamps()
    assert stamps.moved()
    assert stamps.moved()
    stamps.taken()
    assert [stamps.moved() for _ in range(4)] == [False] * 4
