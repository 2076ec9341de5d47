"""The outbox: once for each key, in order, again after a kill, given up aloud, never too fast."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from control.outbox import actions, nudge, retention, store
from control.outbox.deliverer import Deliverer
from control.outbox.enqueue import enqueue
from control.outbox.lanes import BREAKER, LEASE_MARGIN_S, PATIENCE_S
from control.outbox.models import OutboxAttempt, OutboxMessage
from control.outbox.senders import (
    DoubtfulError,
    Outgoing,
    Terms,
    register_sender,
    unregister_sender,
)
from control.outbox.sources import register_source, unregister_source
from control.outbox.store import ORDERED_ATTEMPTS
from pipeline.errors import PermanentError, RetryableError
from pipeline.runtime.clock import FakeClock

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "test-sender"


class Recording:
    """A sender that answers what a test has laid out, and keeps what it was given."""

    deadline_s = 5.0

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.answers: list[Exception | str] = []
        self.ended: list[tuple[str, bool]] = []
        self.known: Terms | None = Terms(rate_per_minute=6000)
        self.entered = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()

    def terms(self, channel: str) -> Terms | None:
        return self.known

    def send(self, message: Outgoing) -> str:
        self.sent.append(message)
        self.entered.set()
        assert self.may_go.wait(180)
        answer = self.answers.pop(0) if self.answers else "200 thanks"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def settled(self, message: Outgoing, sent: bool) -> None:
        self.ended.append((message.dedupe_key, sent))

    @property
    def keys(self) -> list[str]:
        return [message.dedupe_key for message in self.sent]


@pytest.fixture
def sender():
    made = Recording()
    register_sender(NAME, made)
    yield made
    made.may_go.set()
    unregister_sender(NAME)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def deliverer(clock):
    made = Deliverer(owner="one", clock=clock, jitter=lambda: 1.0)
    yield made
    made.stop(30)


def now_of(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.time_us() / 1e6, UTC)


def put(clock: FakeClock, key: str = "k1", *, channel: str = "7", **more) -> bool:
    return enqueue(
        dedupe_key=key,
        sender=NAME,
        channel=channel,
        channel_name="ops",
        subject="it is down",
        payload={"key": key},
        now=now_of(clock),
        **more,
    )


def deliver(deliverer: Deliverer) -> None:
    deliverer.look()
    assert deliverer.await_idle(30)


def only() -> OutboxMessage:
    return OutboxMessage.objects.get()


def next_one(clock):
    """The message whose turn it is; there is one."""
    message = store.next_of((NAME, "7"), now_of(clock))
    assert message is not None
    return message


def test_a_message_is_sent_once_and_says_so(sender, clock, deliverer):
    assert put(clock)
    deliver(deliverer)
    deliver(deliverer)
    assert sender.keys == ["k1"]
    message = only()
    assert (message.state, message.attempts, message.last_error) == ("sent", 1, "")
    assert message.finished_at == now_of(clock)
    attempt = message.attempt_log.get()
    assert (attempt.outcome, attempt.text, attempt.process) == ("sent", "200 thanks", "one")
    assert sender.ended == [("k1", True)]


def test_the_same_key_is_one_message(clock):
    assert put(clock)
    assert not put(clock)
    assert OutboxMessage.objects.count() == 1


def test_it_goes_with_the_transaction_that_caused_it(clock):
    nudge.wanted.clear()
    with transaction.atomic():
        put(clock)
        transaction.set_rollback(True)
    assert not OutboxMessage.objects.exists()
    assert not nudge.wanted.is_set()
    with transaction.atomic():
        put(clock)
        assert not nudge.wanted.is_set()
    assert nudge.wanted.is_set()


def test_not_before_its_time(sender, clock, deliverer):
    put(clock, not_before=now_of(clock) + timedelta(seconds=60))
    deliver(deliverer)
    assert sender.sent == []
    clock.advance(60)
    deliver(deliverer)
    assert sender.keys == ["k1"]


def test_what_may_work_later_is_tried_again_with_the_same_key(sender, clock, deliverer):
    put(clock)
    sender.answers = [RetryableError("answered 500 oops")]
    deliver(deliverer)
    message = only()
    assert (message.state, message.last_error) == ("waiting", "answered 500 oops")
    assert message.next_at == now_of(clock) + timedelta(seconds=2)
    clock.advance(1.9)
    deliver(deliverer)
    assert len(sender.sent) == 1
    clock.advance(0.2)
    deliver(deliverer)
    assert sender.keys == ["k1", "k1"]
    assert [one.attempt for one in sender.sent] == [1, 2]
    assert only().state == "sent"
    assert [one.outcome for one in only().attempt_log.all()] == ["retry", "sent"]


def test_retry_after_is_honoured_by_all_of_the_channel(sender, clock, deliverer):
    put(clock)
    sender.answers = [RetryableError("answered 429", retry_after_s=120)]
    deliver(deliverer)
    assert only().next_at == now_of(clock) + timedelta(seconds=120)
    put(clock, "k2")
    put(clock, "k3", channel="8")
    clock.advance(119)
    deliver(deliverer)
    assert sender.keys == ["k1", "k3"]
    clock.advance(1.5)
    deliver(deliverer)
    assert sender.keys == ["k1", "k3", "k1", "k2"]


def test_what_will_never_work_fails_at_once(sender, clock, deliverer):
    put(clock)
    sender.answers = [PermanentError("answered 404 no such hook")]
    deliver(deliverer)
    clock.advance(1e6)
    deliver(deliverer)
    message = only()
    assert (message.state, message.attempts) == ("failed", 1)
    assert message.last_error == "answered 404 no such hook"
    assert sender.ended == [("k1", False)]


def test_what_only_sounds_final_is_doubted_for_a_while(sender, clock, deliverer):
    put(clock)
    sender.answers = [DoubtfulError("answered 404")] * 3
    for _ in range(100):
        deliver(deliverer)
        clock.advance(5)
    assert only().state == "sent"
    assert len(sender.sent) == 4


def test_what_goes_on_sounding_final_fails(sender, clock, deliverer):
    put(clock)
    sender.answers = [DoubtfulError("answered 404")] * 100
    began = clock.monotonic()
    while only().state == "waiting":
        deliver(deliverer)
        clock.advance(5)
    assert PATIENCE_S <= clock.monotonic() - began <= PATIENCE_S + 60
    assert only().last_error == "Given up after 15 minutes of it: answered 404"
    assert sender.ended == [("k1", False)]
    assert [one.outcome for one in only().attempt_log.all()][-2:] == ["retry", "failed"]
    attempts = only().attempts
    clock.advance(BREAKER.open_s)
    assert actions.retry([only().pk], now_of(clock)) == 1
    deliver(deliverer)
    assert (only().state, only().attempts) == ("waiting", attempts + 1)  # doubted anew


def test_another_answer_ends_the_doubt(sender, clock, deliverer):
    put(clock)
    said = [DoubtfulError("answered 404"), RetryableError("answered 503")]
    sender.answers = said * 20
    for _ in range(3 * int(PATIENCE_S / 10)):
        deliver(deliverer)
        clock.advance(10)
    assert only().state == "waiting"


def test_the_longest_doubt_ends_with_the_message(sender, clock, deliverer):
    put(clock, max_age_s=100)
    sender.answers = [DoubtfulError("answered 404")] * 100
    for _ in range(30):
        deliver(deliverer)
        clock.advance(5)
    assert only().state == "failed"


def test_too_old_is_given_up_aloud(sender, clock, deliverer):
    put(clock, max_age_s=100)
    sender.answers = [RetryableError("answered 503 later")] * 50
    for _ in range(60):
        deliver(deliverer)
        clock.advance(5)
    message = only()
    assert message.state == "failed"
    assert "answered 503 later" in message.last_error
    assert "Given up" in message.last_error
    assert sender.ended == [("k1", False)]
    assert len(sender.sent) > 2


def test_one_that_was_never_tried_fails_too(sender, clock, deliverer):
    put(clock, max_age_s=100)
    clock.advance(101)
    deliver(deliverer)
    assert sender.sent == []
    assert only().state == "failed"
    assert "0 attempts" in only().last_error


def test_what_a_sender_raises_of_its_own_is_retried_and_not_shown(sender, clock, deliverer):
    put(clock)
    sender.answers = [ValueError("password=hunter2")]
    deliver(deliverer)
    assert only().state == "waiting"
    assert "hunter2" not in only().last_error + only().attempt_log.get().text


def test_an_answer_no_database_takes_is_spelled_out(sender, clock, deliverer):
    put(clock)
    sender.answers = [PermanentError("nul \0 and \udc80" + "x" * 5000)]
    deliver(deliverer)
    assert only().state == "failed"
    assert "nul \\u0000" in only().last_error


def test_order_is_kept_while_the_first_is_retried(sender, clock, deliverer):
    put(clock, "k1")
    put(clock, "k2")
    sender.answers = [RetryableError("not now")]
    deliver(deliverer)
    assert sender.keys == ["k1"]
    clock.advance(2)
    deliver(deliverer)
    assert sender.keys == ["k1", "k1", "k2"]


def test_one_that_never_works_does_not_block_for_ever(sender, clock, deliverer):
    put(clock, "bad")
    deliver_until = ORDERED_ATTEMPTS + 1
    sender.answers = [RetryableError("500")] * deliver_until
    put(clock, "good")
    for _ in range(40):
        deliver(deliverer)
        clock.advance(BREAKER.open_s)
        if "good" in sender.keys:
            break
    assert "good" in sender.keys


def test_a_breaker_spares_a_channel_that_fails(sender, clock, deliverer):
    for number in range(10):
        put(clock, f"k{number}")
    sender.answers = [RetryableError("refused")] * 100
    for _ in range(20):
        deliver(deliverer)
        clock.advance(1)
    tries = len(sender.sent)
    assert tries <= 4
    sender.answers = []
    clock.advance(BREAKER.open_s)
    for _ in range(5):
        deliver(deliverer)
        clock.advance(10)
    assert OutboxMessage.objects.filter(state="sent").count() == 10


def test_a_rate_is_kept(sender, clock, deliverer):
    sender.known = Terms(rate_per_minute=6)
    for number in range(4):
        put(clock, f"k{number}")
    sent_at = []
    for _ in range(40):
        before = len(sender.sent)
        deliver(deliverer)
        sent_at += [clock.monotonic()] * (len(sender.sent) - before)
        clock.advance(1)
    gaps = [b - a for a, b in itertools.pairwise(sent_at)]
    assert sender.keys == ["k0", "k1", "k2", "k3"]
    assert all(gap >= 10 for gap in gaps)


def test_a_channel_that_is_off_waits_and_one_that_is_gone_fails(sender, clock, deliverer):
    put(clock)
    sender.known = Terms(enabled=False)
    deliver(deliverer)
    assert (only().state, sender.sent) == ("waiting", [])
    sender.known = None
    clock.advance(60)
    deliver(deliverer)
    assert only().state == "failed"
    assert "no such channel" in only().last_error


def test_a_sender_that_is_not_here_leaves_it_to_others(clock, deliverer):
    put(clock)
    deliver(deliverer)
    assert only().state == "waiting"


def test_a_process_killed_before_it_could_say_so(sender, clock, deliverer):
    put(clock)
    lease_s = sender.deadline_s + LEASE_MARGIN_S
    first = next_one(clock)
    assert store.claim(first, owner="dead", now=now_of(clock), lease_s=lease_s)
    put(clock, "k2")
    clock.advance(lease_s - 1)
    deliver(deliverer)
    assert sender.sent == []  # it may still be at it, and the second waits for the first
    clock.advance(1)
    deliver(deliverer)
    assert sender.keys == ["k1", "k2"]
    log = OutboxMessage.objects.get(dedupe_key="k1").attempt_log.all()
    assert [(one.outcome, one.process) for one in log] == [("silent", "dead"), ("sent", "one")]


def test_one_claim_of_many(sender, clock):
    put(clock)
    seen = [next_one(clock) for _ in range(3)]
    taken = [
        store.claim(message, owner=str(place), now=now_of(clock), lease_s=30)
        for place, message in enumerate(seen)
    ]
    assert taken == [True, False, False]
    assert only().owner == "0"


def test_a_late_answer_does_not_undo_another_process(sender, clock):
    put(clock)
    message = next_one(clock)
    store.claim(message, owner="slow", now=now_of(clock), lease_s=30)
    clock.advance(31)
    again = next_one(clock)
    assert store.claim(again, owner="quick", now=now_of(clock), lease_s=30)
    ended: list[bool] = []
    done = store.Outcome(word="sent", text="200")
    assert store.finish(again, done, now=now_of(clock), settled=ended.append)
    failed = store.Outcome(word="failed", text="404")
    assert not store.finish(message, failed, now=now_of(clock), settled=ended.append)
    assert (only().state, ended) == ("sent", [True])


def test_a_channel_that_hangs_holds_up_no_other(sender, clock, deliverer):
    sender.may_go.clear()
    put(clock, "hangs", channel="7")
    deliverer.look()
    assert sender.entered.wait(180)
    sender.entered.clear()
    put(clock, "goes", channel="8")
    deliverer.look()
    assert sender.entered.wait(180)
    assert set(sender.keys) == {"hangs", "goes"}
    assert deliverer.look() == 0  # both run: neither gets a second thread
    sender.may_go.set()
    assert deliverer.await_idle(30)
    assert OutboxMessage.objects.filter(state="sent").count() == 2


def test_a_stop_waits_for_what_is_being_sent_and_sends_nothing_more(sender, clock, deliverer):
    sender.may_go.clear()
    put(clock, "k1")
    put(clock, "k2")
    deliverer.look()
    assert sender.entered.wait(180)
    assert not deliverer.stop(0.05)
    sender.may_go.set()
    assert deliverer.stop(30)
    assert sender.keys == ["k1"]
    assert OutboxMessage.objects.get(dedupe_key="k1").state == "sent"
    assert OutboxMessage.objects.get(dedupe_key="k2").state == "waiting"


def test_the_thread_is_woken_by_a_nudge(sender, clock):
    running = Deliverer(owner="one", jitter=lambda: 1.0)
    running.start()
    running.start()
    try:
        enqueue(dedupe_key="k1", sender=NAME, channel="7", payload={}, now=datetime.now(UTC))
        assert sender.entered.wait(180)
    finally:
        assert running.stop(30)
        assert running.stop(30)


def test_nothing_to_do_is_one_query(sender, clock, deliverer, django_assert_num_queries):
    unregister_source("notify")
    try:
        with django_assert_num_queries(1):
            deliverer.look()
    finally:
        from healthmon.notify.arming import arm

        arm()


def test_a_source_is_asked_before_each_look_and_may_fail(sender, clock, deliverer):
    def pour(now):
        put(clock, "poured")

    def fails(now):
        raise ValueError("broken")

    register_source("a-broken", fails)
    register_source("b-pours", pour)
    try:
        deliver(deliverer)
    finally:
        unregister_source("a-broken")
        unregister_source("b-pours")
    assert sender.keys == ["poured"]


def test_retry_and_cancel(sender, clock, deliverer):
    put(clock)
    sender.answers = [PermanentError("404")]
    deliver(deliverer)
    assert actions.retry([only().pk], now_of(clock)) == 1
    assert only().state == "waiting"
    assert actions.cancel([only().pk], now_of(clock)) == 1
    assert only().state == "cancelled"
    assert actions.cancel([only().pk], now_of(clock)) == 0
    deliver(deliverer)
    assert len(sender.sent) == 1
    assert actions.retry([only().pk], now_of(clock)) == 1
    deliver(deliverer)
    assert only().state == "sent"
    assert actions.retry([only().pk], now_of(clock)) == 0


def test_what_has_ended_is_forgotten_in_time(sender, clock, deliverer):
    put(clock, "sent")
    put(clock, "fails")
    put(clock, "waits", not_before=now_of(clock) + timedelta(days=365))
    sender.answers = ["200", PermanentError("404")]
    deliver(deliverer)
    assert retention.forget_old(now_of(clock) + timedelta(days=29)) == 0
    assert retention.forget_old(now_of(clock) + timedelta(days=31)) == 1
    assert retention.forget_old(now_of(clock) + timedelta(days=91)) == 1
    assert [one.dedupe_key for one in OutboxMessage.objects.all()] == ["waits"]
    assert OutboxAttempt.objects.count() == 0
