"""Owns: the load itself. Many clients, one thread, one selector.

A client sends, waits for the answer, and sends again (closed loop), or sends when the schedule
says (open loop, latencies counted from the scheduled moment, so that a stalled server cannot hide
its stall). A refusal waits as long as the server asked, with jitter, and is tried again as long as
anybody's records are accepted. Once nobody has answered for as long as a request may be retried,
the run ends. Everything runs on the caller's thread; no locks. `stop()`
may be called from a signal handler: it only sets a flag.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from random import Random

from ingest.client.arguments import with_ack
from ingest.client.clock import Clock
from ingest.client.response import Response, ResponseError, request_head, rest_of_head
from ingest.client.retry import REFUSED_FOR_NOW, parse_retry_after, wait_before_retry
from ingest.client.target import Target
from ingest.loadtest.connection import Connection, ConnectionLost
from ingest.loadtest.load import Load
from ingest.loadtest.outcomes import Outcomes
from ingest.loadtest.records import RecordMaker, Request
from ingest.loadtest.schedule import Schedule
from ingest.loadtest.tally import Tally

__all__ = ["Generator", "Load", "Unreachable"]

_TICK_S = 0.1
_STALE_AFTER_S = 0.5


class Unreachable(Exception):
    """The server never took a connection."""


class _Client:
    __slots__ = ("connection", "deadline", "idle_since", "request", "started", "writing")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.request: Request | None = None
        self.started = 0.0
        self.deadline = 0.0
        self.idle_since = 0.0
        self.writing = False


class Generator:
    def __init__(
        self,
        *,
        target: Target,
        load: Load,
        maker: RecordMaker,
        clock: Clock,
        rng: Random,
        on_progress: Callable[[Tally], None] | None = None,
    ) -> None:
        self._target, self._load, self._maker = target, load, maker
        self._clock, self._rng = clock, rng
        self._on_progress = on_progress
        self.tally = Tally(records=load.records)
        self._head = request_head(
            path=with_ack(target.base_path + maker.path, load.ack),
            authority=target.authority,
            content_type=maker.content_type(load.batch),
            api_key=load.api_key,
            extra={"User-Agent": "collector-loadtest"},
        )
        self._selector = selectors.DefaultSelector()
        self._idle = [_Client() for _ in range(load.clients)]
        self._busy: set[_Client] = set()
        self._schedule = Schedule(load)
        self._outcomes = Outcomes(self.tally, keyed=load.keys)
        self._ever_connected = False
        self._interrupted = False
        self._heard = 0.0  # when any client last had an answer
        self._accepted = 0.0  # when any client's records were last accepted

    def stop(self) -> None:
        """Start nothing new; requests that were sent are still answered."""
        self._interrupted = True
        self._schedule.stop()

    def run(self) -> Tally:
        tally, clock = self.tally, self._clock
        tally.started = self._heard = clock.now()
        self._schedule.start(tally.started)
        tick = tally.started + _TICK_S
        try:
            while True:
                now = clock.now()
                self._dispatch(now)
                if not self._busy and not self._schedule.waiting(now):
                    break
                self._wait(now, tick)
                now = clock.now()
                if now >= tick:
                    tick = now + _TICK_S
                    self._cut_overdue(now)
                    if self._on_progress is not None:
                        self._on_progress(tally)
        finally:
            tally.finished = clock.now()
            tally.interrupted = self._interrupted
            for request in self._schedule.left():
                self._outcomes.refused(request)
            for client in (*self._idle, *self._busy):
                if client.connection is not None:
                    client.connection.close()
            self._selector.close()
        return tally

    # -- what is to be sent ------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        while self._idle:
            request = self._schedule.take(now, idle=len(self._idle))
            if request is None:
                return
            self._begin(self._idle.pop(), request, now)

    def _begin(self, client: _Client, request: Request, now: float) -> None:
        if request.begun is None:
            request.begun = now
            if request.due is not None:
                self.tally.max_late_s = max(self.tally.max_late_s, now - request.due)
        request.attempts += 1
        client.request = request
        client.deadline = now + self._load.timeout_s
        self._busy.add(client)
        self.tally.requests += 1
        try:
            connection = client.connection
            idle_s = now - client.idle_since
            if connection is not None and idle_s > _STALE_AFTER_S and connection.is_stale():
                self._drop(client)
                connection = None
            if connection is None:
                connection = client.connection = Connection(self._target)
                self._selector.register(connection.sock, selectors.EVENT_READ, client)
                client.writing = False
                connection.open()
            body = self._maker.body(request)
            client.started = self._clock.now()
            key = self._maker.key(request) if self._load.keys else ""
            connection.send(self._head, rest_of_head(len(body), key=key), body)
            self._watch(client)
        except ConnectionLost as lost:
            self._on_lost(client, lost)

    # -- what comes back ---------------------------------------------------------------------

    def _wait(self, now: float, tick: float) -> None:
        until = [tick]
        if self._idle:
            until += self._schedule.moments(now)
        pause = max(min(until) - now, 0.0)
        if not self._busy:
            self._clock.sleep(pause)
            return
        for key, events in self._selector.select(pause):
            client: _Client = key.data
            if client.request is None:
                self._drop(client)  # the server closed a connection that was idle
                continue
            try:
                self._on_ready(client, events)
            except ConnectionLost as lost:
                self._on_lost(client, lost)
            except ResponseError as error:
                self.tally.bad_answers += 1
                self._on_lost(
                    client, ConnectionLost(str(error), sent_all=True, connected=True), counted=True
                )

    def _on_ready(self, client: _Client, events: int) -> None:
        connection = client.connection
        assert connection is not None
        if events & selectors.EVENT_WRITE:
            connection.flush()
            self._ever_connected = True
            self._watch(client)
        if events & selectors.EVENT_READ:
            response = connection.receive()
            if response is not None:
                self._ever_connected = True
                self._on_response(client, response)

    def _watch(self, client: _Client) -> None:
        connection = client.connection
        assert connection is not None
        if connection.wants_write != client.writing:
            client.writing = connection.wants_write
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.writing else 0)
            self._selector.modify(connection.sock, events, client)

    def _on_response(self, client: _Client, response: Response) -> None:
        request, tally, now = client.request, self.tally, self._clock.now()
        assert request is not None
        tally.statuses[response.status] += 1
        self._heard = now
        if 200 <= response.status < 300:
            self._accepted = now
            since = client.started if request.due is None else request.due
            self._outcomes.succeeded(request, response, now - since)
        elif response.status in REFUSED_FOR_NOW:
            retry_after = parse_retry_after(response.headers.get("retry-after", ""))
            self._try_later(request, str(response.status), retry_after, now)
        else:
            self._outcomes.failed(request, response)
        self._free(client, keep=response.keep_alive, now=now)

    def _on_lost(self, client: _Client, lost: ConnectionLost, *, counted: bool = False) -> None:
        request, now = client.request, self._clock.now()
        assert request is not None
        if not lost.connected and not self._ever_connected:
            raise Unreachable(
                f"{self._target.url}: {lost}. Is the server running? If it is elsewhere, "
                "name the server with --url"
            ) from lost
        if not counted:
            self.tally.lost_connections += 1
        if lost.sent_all and lost.connected:
            request.unanswered += 1
        self._try_after_loss(request, now)
        self._free(client, keep=False, now=now)

    def _try_later(
        self, request: Request, cause: str, retry_after_s: float | None, now: float
    ) -> None:
        at = now + self._pause(request, retry_after_s)
        since = request.since
        if self._load.retry_pause_s is None:
            # A server that takes others' records is busy, not broken: its turn comes.
            since = max(since, self._accepted)
        if self.tally.ended:
            self._outcomes.refused(request)
        elif self._schedule.stopped or at - since > self._load.retry_for_s:
            self._outcomes.gave_up(request, cause)
        else:
            self._again(request, cause, at)

    def _try_after_loss(self, request: Request, now: float) -> None:
        """A lost connection may be this request's fault, or tell of a server that is gone.

        While others are answered the request has its own time. While nobody is, all go on until
        one window of silence is over, which ends the run.
        """
        silent_until = self._heard + (self._load.retry_for_s or self._load.timeout_s)
        still_silent = request.lost_after == self._heard
        request.lost_after = self._heard
        if not self._schedule.stopped:
            if now >= silent_until:
                self._end()
            elif still_silent:
                at = min(now + self._pause(request, None), silent_until)
                self._again(request, "connection", at)
                return
        self._try_later(request, "connection", None, now)

    def _pause(self, request: Request, retry_after_s: float | None) -> float:
        if self._load.retry_pause_s is not None:
            return self._load.retry_pause_s
        return wait_before_retry(
            attempt=request.attempts, retry_after_s=retry_after_s, rng=self._rng
        )

    def _again(self, request: Request, cause: str, at: float) -> None:
        self.tally.retries[cause] += 1
        self._schedule.again(request, at)

    def _end(self) -> None:
        """Begin nothing more: one window of silence is enough for all that is still to be sent."""
        silence_s = self._load.retry_for_s or self._load.timeout_s
        self.tally.ended = f"the run was ended: no answer came for {silence_s:g} s (--retry-for)"
        self._schedule.stop()

    def _free(self, client: _Client, *, keep: bool, now: float) -> None:
        client.request = None
        client.idle_since = now
        if not keep:
            self._drop(client)
        elif client.writing:
            self._watch(client)
        self._busy.discard(client)
        self._idle.append(client)

    def _drop(self, client: _Client) -> None:
        if client.connection is not None:
            self._selector.unregister(client.connection.sock)
            client.connection.close()
            client.connection = None
            client.writing = False

    def _cut_overdue(self, now: float) -> None:
        for client in [client for client in self._busy if client.deadline <= now]:
            connection = client.connection
            sent_all = connection is not None and not connection.wants_write
            self._on_lost(
                client,
                ConnectionLost(
                    f"no answer within {self._load.timeout_s:g} s",
                    sent_all=sent_all,
                    connected=connection is not None and connection.connected,
                ),
            )
