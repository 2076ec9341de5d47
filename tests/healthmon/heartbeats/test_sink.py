"""What becomes of pings on their way into the control database, on whichever it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError
from hypothesis import given, settings
from hypothesis import strategies as st

from healthmon.heartbeats.index import index
from healthmon.heartbeats.models import Heartbeat, Ping
from healthmon.heartbeats.pings import FAIL, START, SUCCESS, SentPing, record_of
from healthmon.heartbeats.sink import HealthSink, PingSink
from healthmon.heartbeats.store import KEPT, Arrived, PingStore, fold
from healthmon.targets.models import Target
from pipeline.errors import PartialFailure, RetryableError
from pipeline.record import Record
from tests.healthmon.heartbeats.batches import batch_of

pytestmark = pytest.mark.django_db
AT = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


def sent(target: Target, kind: str = SUCCESS, exit_code: int | None = None) -> Record:
    ping = SentPing(
        target_id=target.pk, kind=kind, exit_code=exit_code, remote="192.0.2.1", body="done\n"
    )
    return record_of(ping, target=target.name, at_us=1)


def health(service: str, status: str = "up", payload: bytes = b"{}") -> Record:
    return Record(1, 9, service, status, "", "", payload)


def test_a_ping_is_listed_and_counts(make_target: Callable[..., Target]) -> None:
    target = make_target()
    batch = batch_of([sent(target)], base=41, received_us=1_760_000_000_000_000)
    written = PingSink().write(batch)
    assert (written.stored, written.already_stored) == (1, 0)
    ping = Ping.objects.get()
    assert (ping.target_id, ping.record_id, ping.kind) == (target.pk, 41, SUCCESS)
    assert (ping.remote, ping.body) == ("192.0.2.1", "done\n")
    row = Heartbeat.objects.get()
    assert row.seq == 41
    # The time of arrival, whatever the sender's clock says.
    assert row.last_success_at == ping.at == datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)


def test_the_same_batch_again_changes_nothing(make_target: Callable[..., Target]) -> None:
    target = make_target()
    sink = PingSink()
    batch = batch_of([sent(target, START), sent(target, FAIL, 3)], base=7)
    sink.write(batch)
    before = Heartbeat.objects.values().get()
    written = sink.write(batch)
    assert (written.stored, written.already_stored) == (0, 2)
    assert Heartbeat.objects.values().get() == before
    assert Ping.objects.count() == 2


def test_a_run_is_measured_from_start_to_end(make_target: Callable[..., Target]) -> None:
    target = make_target()
    sink = PingSink()
    sink.write(batch_of([sent(target, START)], base=1, received_us=1_000_000))
    assert Heartbeat.objects.get().last_status == START
    sink.write(batch_of([sent(target, SUCCESS, 0)], base=2, received_us=3_500_000))
    row = Heartbeat.objects.get()
    assert (row.last_status, row.last_duration_ms, row.last_exit_code) == (SUCCESS, 2500.0, 0)
    assert Ping.objects.get(record_id=2).duration_ms == 2500.0
    sink.write(batch_of([sent(target)], base=3, received_us=9_000_000))
    assert Heartbeat.objects.get().last_duration_ms is None


def test_a_failure_says_how(make_target: Callable[..., Target]) -> None:
    target = make_target()
    PingSink().write(batch_of([sent(target, FAIL, 137)]))
    row = Heartbeat.objects.get()
    assert (row.last_exit_code, row.last_error) == (137, "it ended with exit code 137")
    PingSink().write(batch_of([sent(target, FAIL)], base=5))
    assert Heartbeat.objects.get().last_error == "it said that it failed"


def test_an_older_ping_that_comes_late_is_listed_and_does_not_count(
    make_target: Callable[..., Target],
) -> None:
    target = make_target()
    PingSink().write(batch_of([sent(target)], base=10))
    PingSink().write(batch_of([sent(target, FAIL)], base=4))
    row = Heartbeat.objects.get()
    assert (row.seq, row.last_status, row.last_fail_at) == (10, SUCCESS, None)
    assert Ping.objects.count() == 2


def test_the_list_is_bounded(make_target: Callable[..., Target]) -> None:
    target, other = make_target(), make_target("other")
    sink = PingSink()
    sink.write(batch_of([sent(other)], base=1))
    for round in range(30):
        sink.write(batch_of([sent(target)] * 10, base=100 + 10 * round))
    assert KEPT <= Ping.objects.filter(target=target).count() < KEPT + 20
    newest = Ping.objects.filter(target=target).order_by("-record_id").first()
    assert newest is not None
    assert newest.record_id == 399
    assert Ping.objects.filter(target=other).count() == 1
    # A replay of what was cut off neither counts nor stays.
    PingSink().write(batch_of([sent(target)] * 10, base=100))
    assert Ping.objects.filter(target=target).count() == KEPT
    assert Heartbeat.objects.get(target=target).seq == 399


def test_of_many_at_once_the_newest_are_listed(make_target: Callable[..., Target]) -> None:
    target = make_target()
    PingSink().write(batch_of([sent(target)] * 250, base=1))
    ids = list(Ping.objects.order_by("record_id").values_list("record_id", flat=True))
    assert ids == list(range(251 - KEPT, 251))


def test_pings_of_a_target_that_is_gone_are_done_with(make_target: Callable[..., Target]) -> None:
    target, gone = make_target(), make_target("gone")
    batch = batch_of([sent(gone), sent(target)])
    gone.delete()
    assert PingSink().write(batch).stored == 2
    assert Ping.objects.count() == 1


def test_what_is_no_ping_is_refused_alone(make_target: Callable[..., Target]) -> None:
    target = make_target()
    garbage = Record(1, 9, "x", "success", "", "", b'{"target_id":"x"}')
    with pytest.raises(PartialFailure) as failed:
        PingSink().write(batch_of([sent(target), garbage, sent(target)]))
    assert list(failed.value.failures) == [1]
    assert Ping.objects.count() == 2


def test_a_database_that_is_away_is_tried_again(
    make_target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_target()

    def away(self: PingStore, arrived: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(PingStore, "take", away)
    with pytest.raises(RetryableError, match="it closed the connection"):
        PingSink().write(batch_of([sent(target)]))


# --- /health -----------------------------------------------------------------------------------


def test_a_service_feeds_the_target_that_names_it(make_target: Callable[..., Target]) -> None:
    target = make_target(address="checkout")
    make_target("idle", address="")
    records = [
        health("checkout", "up", b'{"latency_ms": 12.5}'),
        health("somebody-else"),
        health("checkout", "degraded", b'{"latency_ms": null}'),
        health("checkout", "down"),
    ]
    batch = batch_of(records, type="health", base=20)
    assert HealthSink().write(batch).stored == 4
    pings = list(Ping.objects.order_by("record_id").values_list("target_id", "kind", "duration_ms"))
    assert pings == [
        (target.pk, SUCCESS, 12.5),
        (target.pk, "degraded", None),
        (target.pk, FAIL, None),
    ]
    assert HealthSink().write(batch).already_stored == 3


def test_tenants_may_be_told_apart(make_target: Callable[..., Target]) -> None:
    ours = make_target("ours", address="api", options={"tenant": "acme"})
    any_ = make_target("any", address="api")
    HealthSink().write(batch_of([health("api")], type="health", tenant="evil", base=1))
    assert set(Ping.objects.values_list("target_id", flat=True)) == {any_.pk}
    HealthSink().write(batch_of([health("api")], type="health", tenant="acme", base=2))
    assert set(Ping.objects.values_list("target_id", flat=True)) == {any_.pk, ours.pk}


def test_services_that_nobody_watches_do_not_reach_the_database(
    make_target: Callable[..., Target], django_assert_num_queries: Callable[..., object]
) -> None:
    make_target(address="checkout")
    sink = HealthSink()
    index().refresh()
    batch = batch_of([health(f"service-{n}") for n in range(5_000)], type="health")
    with django_assert_num_queries(0):  # type: ignore[attr-defined]
        assert sink.write(batch).stored == 5_000


def test_a_new_target_is_known_after_a_refresh(make_target: Callable[..., Target]) -> None:
    make_target("first", address="first")
    index().refresh()
    target = make_target("second", address="second")
    index().refresh()
    HealthSink().write(batch_of([health("second")], type="health"))
    assert Ping.objects.get().target_id == target.pk


# --- the order in which they come does not matter ----------------------------------------------

_kinds = st.sampled_from([START, SUCCESS, FAIL])


@given(
    kinds=st.lists(_kinds, min_size=1, max_size=30),
    seed=st.integers(0, 1000),
    repeats=st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_the_newest_decides_in_whatever_order_and_however_often(
    kinds: list[str], seed: int, repeats: int
) -> None:
    rng = random.Random(seed)
    pings = [
        Arrived(record_id=n + 1, target_id=1, at=AT + timedelta(seconds=n), kind=kind)
        for n, kind in enumerate(kinds)
    ]
    shuffled = pings + rng.choices(pings, k=repeats)
    rng.shuffle(shuffled)
    row = Heartbeat(target_id=1)
    seen = 0
    for one in shuffled:
        counted = fold(row, one)
        assert counted is (one.record_id > seen)
        seen = max(seen, one.record_id)
    assert row.seq == len(kinds)
    assert row.last_status == kinds[-1]
    assert row.last_ping_at == pings[-1].at
