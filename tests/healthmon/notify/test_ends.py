"""From a flip to a server that is told, by the outbox; and by processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings as collector
from django.db import connections

from control.outbox import actions
from control.outbox.deliverer import Deliverer
from control.outbox.models import OutboxAttempt, OutboxMessage
from healthmon.notify import problems
from healthmon.truth.models import IncidentEntry
from pipeline.runtime.clock import FakeClock
from tests.healthmon.notify.cast import T0, make_channel, make_rule, play
from tests.healthmon.notify.webserver import HANG, answer

pytestmark = pytest.mark.django_db(transaction=True)


class Post:
    """The outbox of one process, at the play's time."""

    def __init__(self, stage) -> None:
        self._stage = stage
        self.clock = FakeClock(start_us=int(T0.timestamp() * 1e6))
        self.deliverer = Deliverer(owner="one", clock=self.clock, jitter=lambda: 1.0)

    def wait(self, seconds: float) -> None:
        self._stage.wait(seconds)
        self.clock.advance(seconds)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.time_us() / 1e6, UTC)

    def deliver(self) -> None:
        self.deliverer.look()
        assert self.deliverer.await_idle(30)


def test_from_a_flip_to_the_server_and_into_the_timeline(web):
    make_rule(make_channel(url=web.url, secret="shared"), group_wait_s=1)
    with play() as stage:
        post = Post(stage)
        api = stage.target()
        stored = stage.flip(api, "down")
        post.wait(1)
        post.deliver()
        stage.flip(api, "up")
        post.wait(1)
        post.deliver()
        assert [json.loads(one.body)["title"] for one in web.posted] == [
            "DOWN: api",
            "RECOVERED: api",
        ]
        texts = IncidentEntry.objects.filter(incident=stored.incident, kind="notified")
        assert list(texts.values_list("text", flat=True)) == [
            "ops was told: down",
            "ops was told: recovered",
        ]


def test_429_and_500_are_tried_again_with_the_same_key(web):
    make_rule(make_channel(url=web.url), group_wait_s=0)
    web.will(answer(429, "slow down", Retry_After="100"), answer(500, "oops"))
    with play() as stage:
        post = Post(stage)
        stage.flip(stage.target(), "down")
        post.deliver()
        post.wait(99)
        post.deliver()
        assert len(web.posted) == 1
        for _ in range(3):
            post.wait(100)
            post.deliver()
        assert len(web.posted) == 3
        assert len({one.headers["x-collector-delivery"] for one in web.posted}) == 1
        outcomes = OutboxAttempt.objects.order_by("pk").values_list("outcome", "text")
        assert list(outcomes) == [
            ("retry", "answered 429 slow down"),
            ("retry", "answered 500 oops"),
            ("sent", "200 thanks"),
        ]


def test_a_4xx_fails_at_once_and_the_timeline_says_so(web):
    make_rule(make_channel(url=web.url), group_wait_s=0)
    web.will(answer(422, "gone: " + web.url))
    with play() as stage:
        post = Post(stage)
        stage.flip(stage.target(), "down")
        post.deliver()
        message = OutboxMessage.objects.get()
        assert message.state == "failed"
        assert "answered 422 gone: ********" in message.last_error
        assert IncidentEntry.objects.get(kind="notified").text == "ops could not be told: down"


@pytest.mark.parametrize("said", [answer(404), answer(302, Location="/sorry"), answer(403)])
def test_a_receiver_that_is_being_replaced_loses_nothing(web, said):
    make_rule(make_channel(url=web.url), group_wait_s=0)
    web.will(said, said)
    with play() as stage:
        post = Post(stage)
        api = stage.target()
        stage.flip(api, "down")
        for _ in range(4):
            post.deliver()
            post.wait(10)
        stage.flip(api, "up")
        post.deliver()
        assert [json.loads(one.body)["title"] for one in web.posted[2:]] == [
            "DOWN: api",
            "RECOVERED: api",
        ]


def test_an_address_that_stays_wrong_fails_after_a_quarter_of_an_hour_and_can_be_sent_again(web):
    make_rule(make_channel(url=web.url), group_wait_s=0)
    web.will(*[answer(404, "no such hook")] * 100)
    with play() as stage:
        post = Post(stage)
        stage.flip(stage.target(), "down")
        for _ in range(89):
            post.deliver()
            post.wait(10)
        assert OutboxMessage.objects.get().state == "waiting"
        for _ in range(4):
            post.deliver()
            post.wait(10)
        message = OutboxMessage.objects.get()
        assert message.state == "failed"
        assert message.last_error == "Given up after 15 minutes of it: answered 404 no such hook"
        assert len(web.posted) < 20
        titles = [one.title for one in problems.found()]
        assert titles == ["1 message could not be delivered by ops"]
        post.wait(60)
        web.forget_answers()
        actions.retry([message.pk], post.now)
        post.deliver()
        message.refresh_from_db()
        assert message.state == "sent"
        assert problems.found() == []


def test_an_outage_of_the_channel_loses_nothing_and_keeps_the_order(web):
    make_rule(make_channel(url=web.url), group_wait_s=0)
    web.will(*[answer(503)] * 3)
    with play() as stage:
        post = Post(stage)
        targets = [stage.target(f"t{number}") for number in range(4)]
        for target in targets:
            stage.flip(target, "down")
            post.deliver()
            post.wait(1)
        for _ in range(20):
            post.wait(30)
            post.deliver()
        titles = [json.loads(one.body)["title"] for one in web.posted[3:]]
        assert titles == [f"DOWN: t{number}" for number in range(4)]


SEND = """
import django
django.setup()
from datetime import UTC, datetime
from control.outbox.deliverer import Deliverer
deliverer = Deliverer(owner="doomed")
deliverer.look()
print("looked", flush=True)
deliverer.await_idle(120)
"""


def test_a_process_killed_while_it_sends(web, tmp_path):
    """kill -9 between sending and marking: another process sends it again, by the same key."""
    make_rule(make_channel(url=web.url), group_wait_s=0)
    with play(datetime.now(UTC)) as stage:
        stage.flip(stage.target(), "down")
    web.will(HANG)
    process = subprocess.Popen(
        [sys.executable, "-c", SEND], env=_environ(tmp_path), stdout=subprocess.PIPE, text=True
    )
    try:
        assert web.arrived.acquire(timeout=60)
        assert OutboxMessage.objects.get().state == "sending"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    message = OutboxMessage.objects.get()
    assert (message.state, message.owner) == ("sending", "doomed")
    later = datetime.now(UTC) + timedelta(seconds=120)
    clock = FakeClock(start_us=int(later.timestamp() * 1e6))
    second = Deliverer(owner="second", clock=clock)
    second.look()
    assert second.await_idle(30)
    assert OutboxMessage.objects.get().state == "sent"
    first, again = web.posted
    assert first.headers["x-collector-delivery"] == again.headers["x-collector-delivery"]
    assert [one.outcome for one in OutboxAttempt.objects.order_by("pk")] == ["silent", "sent"]


def _environ(directory: Path) -> dict[str, str]:
    """The same settings, on the test's own database."""
    settings = connections["default"].settings_dict
    # With the key by which the channel's address is encrypted.
    environ = os.environ | {"COLLECTOR_DATA_DIR": str(collector.COLLECTOR.server.data_dir)}
    name = str(settings["NAME"])
    if connections["default"].vendor == "sqlite":
        # In a parallel run its name is none that the settings could have.
        for alias, file in (("default", "control.sqlite3"), ("records", "records.sqlite3")):
            (directory / file).symlink_to(str(connections[alias].settings_dict["NAME"]))
        environ["COLLECTOR_DATABASE_URL"] = f"sqlite:///{directory}"
    else:
        url = urlsplit(environ["COLLECTOR_DATABASE_URL"])._replace(path=f"/{name}")
        environ["COLLECTOR_DATABASE_URL"] = urlunsplit(url)
    return environ
