"""Owns: the load itself. Many clients, one thread, one selector.

A client sends, waits for the answer, and sends again (closed loop), or sends when the schedule
says (open loop, latencies counted from the scheduled moment, so that a stalled server cannot hide
its stall). A refusal waits as long as the server asked. Everything runs on the caller's thread;
no locks. `stop()` may be called from a signal handler: it only sets a flag.
"""

from __future__ import annotations

import heapq
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ingest.client.clock import Clock
from ingest.client.response import (
    Response,
    ResponseError,
    read_acknowledgement,
    request_head,
)
from ingest.client.retry import REFUSED_FOR_NOW, parse_retry_after, wait_before_retry
from ingest.client.target import Target
from ingest.loadtest.connection import Connection, ConnectionLost
from ingest.loadtest.records import RecordMaker, Request
from ingest.loadtest.tally import ACKNOWLEDGED, REFUSED, REJECTED, Tally

_TICK_S = 0.1
_STALE_AFTER_S = 0.5
_KEPT_REJECTIONS = 5


class Unreachable(Exception):
    """The server never took a connection."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send. Bounded in records, and in time when `duration_s` is given."""

    records: int
    clients: int
    batch: int = 1
    rate: float = 0.0  # records per second; 0: closed loop
    duration_s: float = 0.0
    ack: str = ""
    api_key: str = ""
    timeout_s: float = 30.0
    retry_for_s: float = 60.0
    # A client that does not honour Retry-After comes back after this long; None: it honours it.
    retry_pause_s: float | None = None


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
        query = f"?ack={load.ack}" if load.ack else ""
        self._head = request_head(
            path=f"{target.base_path}{maker.path}{query}",
            authority=target.authority,
            content_type=maker.content_type(load.batch),
            api_key=load.api_key,
            extra={"User-Agent": "collector-loadtest"},
        )
        self._selector = selectors.DefaultSelector()
        self._idle = [_Client() for _ in range(load.clients)]
        self._busy: set[_Client] = set()
        self._retries: list[tuple[float, int, Request]] = []
        self._order = 0
        self._next = 0
        self._ever_connected = False
        self._stopping = False

    def stop(self) -> None:
        """Start nothing new; requests that were sent are still answered."""
        self._stopping = True

    def run(self) -> Tally:
        tally, clock = self.tally, self._clock
        tally.started = clock.now()
        tick = tally.started + _TICK_S
        try:
            while True:
                now = clock.now()
                self._dispatch(now)
                if not self._busy and not self._waiting():
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
            tally.interrupted = self._stopping
            for _, _, request in self._retries:
                self._settle(request, REFUSED)
            for client in (*self._idle, *self._busy):
                if client.connection is not None:
                    client.connection.close()
            self._selector.close()
        return tally

    # -- what is to be sent ------------------------------------------------------------------

    def _waiting(self) -> bool:
        return not self._stopping and (bool(self._retries) or self._more_to_begin())

    def _more_to_begin(self) -> bool:
        if self._stopping or self._next >= self._load.records:
            return False
        over = self._load.duration_s
        return not (over and self._clock.now() - self.tally.started >= over)

    def _next_due(self) -> float | None:
        """When the schedule's next request is due; None in a closed loop."""
        if not self._load.rate:
            return None
        return self.tally.started + self._next / self._load.rate

    def _dispatch(self, now: float) -> None:
        while self._idle and not self._stopping:
            if self._retries and self._retries[0][0] <= now:
                request = heapq.heappop(self._retries)[2]
            elif self._more_to_begin():
                due = self._next_due()
                if due is not None and due > now:
                    return
                # In a closed loop a client that waits for its retry is a busy client.
                if due is None and len(self._idle) <= len(self._retries):
                    return
                count = min(self._load.batch, self._load.records - self._next)
                request = Request(first=self._next, count=count, due=due)
                self._next += count
            else:
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
            connection.send(self._head, b"%d\r\n\r\n" % len(body), body)
            self._watch(client)
        except ConnectionLost as lost:
            self._on_lost(client, lost)

    # -- what comes back ---------------------------------------------------------------------

    def _wait(self, now: float, tick: float) -> None:
        until = [tick]
        if self._idle:
            if self._retries:
                until.append(self._retries[0][0])
            due = self._next_due()
            if due is not None and self._more_to_begin():
                until.append(due)
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
        if 200 <= response.status < 300:
            acknowledgement = read_acknowledgement(response.body)
            if acknowledgement is None:
                tally.bad_answers += 1
                self._keep_reason(f"{response.status} with an unreadable body")
                self._settle(request, REFUSED)
            else:
                tally.latencies.append(
                    now - (client.started if request.due is None else request.due)
                )
                tally.acks[acknowledgement.ack] += 1
                self._settle(request, ACKNOWLEDGED)
                for entry in acknowledgement.errors:
                    self._keep_reason(f"{entry.code}: {entry.detail}")
                    if 0 <= entry.index < request.count:
                        tally.fates[request.first + entry.index] = REJECTED
                tally.records_accepted += acknowledgement.accepted
                tally.records_rejected += acknowledgement.rejected
                short = request.count - acknowledgement.accepted - acknowledgement.rejected
                tally.records_unaccepted += max(short, 0)
        elif response.status in REFUSED_FOR_NOW:
            retry_after = parse_retry_after(response.headers.get("retry-after", ""))
            self._try_later(request, str(response.status), retry_after, now)
        else:
            if response.status >= 500:
                request.unanswered += 1  # the server failed at an unknown point
            self._keep_reason(f"{response.status} {response.body[:200].decode(errors='replace')}")
            self._settle(request, REFUSED)
        self._free(client, keep=response.keep_alive, now=now)

    def _on_lost(self, client: _Client, lost: ConnectionLost, *, counted: bool = False) -> None:
        request, now = client.request, self._clock.now()
        assert request is not None
        if not lost.connected and not self._ever_connected:
            raise Unreachable(f"{self._target.url}: {lost}. Is the server running?") from lost
        if not counted:
            self.tally.lost_connections += 1
        if lost.sent_all and lost.connected:
            request.unanswered += 1
        self._try_later(request, "connection", None, now)
        self._free(client, keep=False, now=now)

    def _try_later(
        self, request: Request, cause: str, retry_after_s: float | None, now: float
    ) -> None:
        wait = self._load.retry_pause_s
        if wait is None:
            wait = wait_before_retry(
                attempt=request.attempts, retry_after_s=retry_after_s, rng=self._rng
            )
        assert request.begun is not None
        if self._stopping or now + wait - request.begun > self._load.retry_for_s:
            self._keep_reason(f"gave up after {request.attempts} attempts, last: {cause}")
            self._settle(request, REFUSED)
            return
        self.tally.retries[cause] += 1
        self._order += 1
        heapq.heappush(self._retries, (now + wait, self._order, request))

    def _settle(self, request: Request, fate: int) -> None:
        tally = self.tally
        tally.fates[request.first : request.first + request.count] = bytes([fate]) * request.count
        if fate == REFUSED:
            tally.records_unaccepted += request.count
        if request.unanswered:
            allowed = request.unanswered + (fate == ACKNOWLEDGED)
            tally.allowed.update(dict.fromkeys(request.sequence, allowed))

    def _keep_reason(self, reason: str) -> None:
        if len(self.tally.rejections) < _KEPT_REJECTIONS:
            self.tally.rejections.append(reason)

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
