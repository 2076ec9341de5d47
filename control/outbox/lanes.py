"""One channel's way out: its breaker, its rate, and sending what is due of it, one after another.

A lane is run by one thread at a time (the deliverer sees to that) and owned by it while it runs;
`not_before` is read by the deliverer's thread when it does not.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from control.outbox import store
from control.outbox.metrics import metrics
from control.outbox.models import FAILED, SENT, OutboxAttempt, OutboxMessage
from control.outbox.senders import DoubtfulError, Outgoing, Sender, Terms, sender_named
from control.outbox.store import Outcome
from pipeline.delivery.breaker import Breaker, BreakerSettings, Permit
from pipeline.delivery.retry import RetryPolicy
from pipeline.errors import PermanentError, RetryableError
from pipeline.intake.ratelimit import Bucket
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

RETRY = RetryPolicy(base_s=2.0, cap_s=300.0)
BREAKER = BreakerSettings(consecutive=3, open_s=30.0)
# How long answers that sound final are doubted, before the message fails.
PATIENCE_S = 15 * 60.0
# Beyond what a sender takes at most, before it is taken for dead.
LEASE_MARGIN_S = 30.0
# How soon a channel is looked at again that is switched off or whose sender is not here.
IDLE_S = 10.0
# Shorter waits are not worth ending the thread for.
SHORT_WAIT_S = 1.0
BURST_S = 10.0


class LaneRun:
    def __init__(
        self,
        *,
        lane: store.Lane,
        owner: str,
        clock: Clock,
        pause: Callable[[float], bool],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`pause` waits so many seconds, and answers True when it is time to stop."""
        self.lane = lane
        self.not_before = 0.0
        self._owner = owner
        self._clock = clock
        self._pause = pause
        self._jitter = jitter
        self._breaker = Breaker(BREAKER, clock.monotonic())
        self._bucket: Bucket | None = None

    def run(self) -> None:
        """Send what is due, until there is nothing, or a wait that is not worth a thread."""
        while not self._pause(0):
            wait_s = self._step()
            if wait_s > SHORT_WAIT_S:
                self.not_before = self._clock.monotonic() + wait_s
                return
            if wait_s < 0 or (wait_s and self._pause(wait_s)):
                return

    def _step(self) -> float:
        """Send one; answers 0 to go on at once, seconds to wait, negative when nothing is due."""
        sender = sender_named(self.lane[0])
        terms = sender.terms(self.lane[1]) if sender is not None else Terms(enabled=False)
        self._give_up_old(sender)
        if sender is None or (terms is not None and not terms.enabled):
            return IDLE_S
        message = store.next_of(self.lane, self._now())
        if message is None:
            return -1
        if terms is None:
            self._give_up(message, sender, "There is no such channel any more.")
            return 0
        monotonic = self._clock.monotonic()
        permit = self._breaker.permit(monotonic)
        if permit is None:
            return max(self._breaker.retry_in_s(monotonic), SHORT_WAIT_S)
        wait_s = self._rate(terms).take()
        if wait_s > 0:
            self._breaker.ignored(permit)
            return wait_s
        lease_s = sender.deadline_s + LEASE_MARGIN_S
        if not store.claim(message, owner=self._owner, now=self._now(), lease_s=lease_s):
            self._breaker.ignored(permit)
            return 0
        self._attempt(message, sender, permit)
        return 0

    def _attempt(self, message: OutboxMessage, sender: Sender, permit: Permit) -> None:
        outgoing = _outgoing(message)
        began = self._clock.monotonic()
        try:
            word, text, error = SENT, sender.send(outgoing), None
        except Exception as raised:
            word, text, error = FAILED, _words(raised), raised
        ended = self._clock.monotonic()
        self._tell_breaker(permit, ended, error)
        now = self._now()
        doubted_at = (message.doubted_at or now) if isinstance(error, DoubtfulError) else None
        retry_at = self._retry_at(message, error, now, doubted_at) if error is not None else None
        if retry_at is not None:
            word = OutboxAttempt.RETRY
        elif doubted_at is not None and now < message.expires_at:
            text = f"Given up after {_minutes(now - doubted_at)} of it: {text}"
        elif error is not None and not isinstance(error, PermanentError):
            text = f"Given up, too old: {text}"
        outcome = Outcome(
            word=word,
            text=text,
            took_ms=(ended - began) * 1000.0,
            retry_at=retry_at,
            doubted_at=doubted_at,
        )
        metrics().attempts.labels(self.lane[0], word).inc()
        ours = store.finish(message, outcome, now=now, settled=partial(sender.settled, outgoing))
        if not ours:
            logger.warning(
                "a message took longer than its lease; another process sends it again",
                extra={"channel": message.channel_name, "message": message.pk},
            )

    def _retry_at(
        self,
        message: OutboxMessage,
        error: BaseException,
        now: datetime,
        doubted_at: datetime | None,
    ) -> datetime | None:
        decision = RETRY.decide(error, attempt=message.attempts, age_s=0, jitter=self._jitter)
        at = now + timedelta(seconds=decision.delay_s)
        if doubted_at is not None:
            last = doubted_at + timedelta(seconds=PATIENCE_S)
            if now >= last:
                return None
            at = min(at, last)  # so that the whole time is made use of
        return at if decision.retry and at < message.expires_at else None

    def _tell_breaker(self, permit: Permit, now: float, error: Exception | None) -> None:
        if error is None or isinstance(error, PermanentError):
            self._breaker.succeeded(permit, now)
            return
        asked = error.retry_after_s if isinstance(error, RetryableError) else None
        # Whoever says when to come back wants nothing else before, either.
        self._breaker.failed(permit, now, _words(error), retry_after_s=asked, trip=bool(asked))

    def _give_up_old(self, sender: Sender | None) -> None:
        now = self._now()
        for message in store.overdue(self.lane, now):
            hours = (message.expires_at - message.created_at).total_seconds() / 3600
            last = f" The last answer: {message.last_error}" if message.last_error else ""
            tries = f"{message.attempts} attempts" if message.attempts != 1 else "one attempt"
            self._give_up(message, sender, f"Given up after {hours:.3g} hours and {tries}.{last}")

    def _give_up(self, message: OutboxMessage, sender: Sender | None, text: str) -> None:
        settled = partial(sender.settled, _outgoing(message)) if sender else _nobody
        if store.give_up(message, text, now=self._now(), settled=settled):
            metrics().attempts.labels(self.lane[0], FAILED).inc()

    def _rate(self, terms: Terms) -> Bucket:
        rate = terms.rate_per_minute / 60.0
        burst = max(1.0, math.floor(rate * BURST_S))
        if self._bucket is None:
            self._bucket = Bucket(rate_per_s=rate, burst=burst, monotonic=self._clock.monotonic)
        elif (self._bucket.rate_per_s, self._bucket.burst) != (rate, burst):
            self._bucket.configure(rate_per_s=rate, burst=burst)
        return self._bucket

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time_us() / 1e6, UTC)


def _outgoing(message: OutboxMessage) -> Outgoing:
    return Outgoing(
        dedupe_key=message.dedupe_key,
        channel=message.channel,
        subject=message.subject,
        payload=message.payload,
        attempt=message.attempts,
        created_at=message.created_at,
    )


def _words(error: BaseException) -> str:
    if isinstance(error, RetryableError | PermanentError):
        return str(error)
    # Its text may carry what nobody may see.
    logger.error("a sender failed in a way of its own", exc_info=error)
    return f"{type(error).__name__} in the sender; the process's log has more"


def _minutes(spent: timedelta) -> str:
    return f"{spent.total_seconds() / 60:.0f} minutes"


def _nobody(sent: bool) -> None:
    """Of a sender that is not here."""
