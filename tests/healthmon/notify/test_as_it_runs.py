"""What is told of what the rest of the program finds: the flips sink, the checker's follower."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from control.outbox.deliverer import Deliverer
from control.outbox.models import OutboxMessage
from healthmon.checker.follower import Follower
from healthmon.checker.windows import Windows
from healthmon.notify import reminders
from healthmon.notify.composing import compose_due
from healthmon.notify.models import Notice
from healthmon.probes.kind import Result
from healthmon.targets.models import Target
from healthmon.truth.models import Flip, IncidentEntry, TargetState
from healthmon.truth.sink import FlipsSink
from pipeline.errors import RetryableError
from tests.healthmon.checker.stand import Stand
from tests.healthmon.checker.virtual import EPOCH_US, Time
from tests.healthmon.notify.cast import make_channel, make_rule
from tests.healthmon.truth.cast import batch_of, change, make_target

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


def send() -> None:
    deliverer = Deliverer(owner="one")
    deliverer.look()
    assert deliverer.await_idle(30)


def test_from_the_flips_sink_to_the_server(web):
    """The application's own hook, as the sink calls it: nothing here is called by hand."""
    make_rule(make_channel(url=web.url), group_wait_s=0)
    shop = make_target("shop", notes="restart it")
    sink = FlipsSink()
    sink.write(batch_of([change(shop, 1, "new>up", 0)]))
    send()
    assert web.posted == []
    down = batch_of([change(shop, 2, "up>down", 10)])
    sink.write(down)
    sink.write(down)  # delivered again: told once
    send()
    sink.write(batch_of([change(shop, 3, "down>up", 100, reason="")]))
    send()
    bodies = [json.loads(one.body) for one in web.posted]
    assert [body["title"] for body in bodies] == ["DOWN: shop", "RECOVERED: shop"]
    (event,) = bodies[0]["events"]
    assert (event["address"], event["reason"]) == ("http://web.example/", "connection refused")
    assert bodies[1]["events"][0]["duration_s"] == 90
    assert "after 1 min 30 s" in bodies[1]["text"]
    told = IncidentEntry.objects.filter(kind="notified").order_by("pk")
    assert [one.text for one in told] == ["ops was told: down", "ops was told: recovered"]


def test_a_flip_that_is_not_kept_is_not_told(monkeypatch):
    make_rule(make_channel(), group_wait_s=0)
    shop = make_target("shop")
    monkeypatch.setattr(
        "healthmon.notify.noticing.transaction.on_commit",
        lambda act: (_ for _ in ()).throw(_lost()),
    )
    with pytest.raises(RetryableError):
        FlipsSink().write(batch_of([change(shop, 1, "up>down", 10)]))
    assert not Flip.objects.exists()
    assert not Notice.objects.exists()


def _lost() -> Exception:
    from django.db import OperationalError

    return OperationalError("the server closed the connection")


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    monkeypatch.setattr("healthmon.targets.options.kind_of", lambda name: made.kind)
    monkeypatch.setattr("healthmon.targets.options.decode_options", lambda cls, values: cls())
    return made


@pytest.fixture
def loop_time(stand: Stand) -> Iterator[Time]:
    made = Time(stand.clock)
    yield made
    made.close()


def test_a_target_that_never_flips_gets_its_certificate_notice(stand: Stand, loop_time: Time):
    make_rule(make_channel(), group_wait_s=0, events=["certificate"])
    shop = Target.objects.create(name="shop", kind="tcp", address="127.0.0.1:9", interval_s=10)
    TargetState.objects.create(target=shop, status="up", seq=1, since=datetime.now(UTC))
    start = datetime.fromtimestamp(EPOCH_US / 1e6, UTC)
    expires = {"us": EPOCH_US + 30 * 86_400_000_000}
    stand.answer = lambda _: Result(total_ms=1.0, cert_expires_us=expires["us"])
    follower = Follower(
        runner=stand.runner,
        windows=Windows(told=stand.runner.in_window),
        epochs=lambda: dict(stand.epochs),
        loop=loop_time.loop,
        now_us=stand.time.now_us,
    )
    object.__setattr__(stand.heard, "certificate", follower.certificate)

    def probed() -> None:
        for _ in range(2):
            follower.poll()
            loop_time.passes(12)
        follower.poll()

    def told(now: datetime) -> list[str]:
        with time_machine.travel(now, tick=False):
            reminders.look_at_calendar(now)
            compose_due(now)
            fresh = OutboxMessage.objects.filter(state="waiting")
            reasons = [one.payload["told"]["events"][0]["reason"] for one in fresh]
            fresh.update(state="sent")
        return reasons

    probed()
    assert told(start + 15 * DAY) == []
    assert told(start + 17 * DAY) == ["in 13 days, on 2027-02-14"]
    # Renewed, again without a flip: the old end is forgotten, and the new one is told in its time.
    expires["us"] = EPOCH_US + 90 * 86_400_000_000
    probed()
    assert told(start + 29 * DAY) == []
    assert told(start + 77 * DAY) == ["in 13 days, on 2027-04-15"]
    assert stand.changes == []
    assert not Flip.objects.exists()
