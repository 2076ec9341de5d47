"""Owns: files -> batches -> server, and moving each file's remembered place after the answer.

One thread, the command's main one; no locks. `stop()` may be called from a signal handler: the
batch in hand is answered or given up, and what was not acknowledged is sent again next time.
Memory holds one batch and one chunk of each file.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from ingest.client.clock import Clock
from ingest.client.response import Response, detail_of, read_acknowledgement
from ingest.client.retry import parse_retry_after, wait_before_retry
from ingest.client.sender import NoAnswer, Sender
from ingest.shipper.lines import Line
from ingest.shipper.state import Position, StateFile
from ingest.shipper.tail import Tail

_KEPT_REASONS = 5
# The request itself is wrong, whatever it carries: no record is at fault and none is passed over.
_MISTAKEN = frozenset({401, 403, 404, 405, 411, 415, 421})


class ShipError(Exception):
    """Shipping cannot go on; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class ShipOptions:
    follow: bool = False
    max_records: int = 1000
    max_bytes: int = 1024 * 1024
    max_wait_s: float = 1.0
    poll_s: float = 0.5
    gzip: bool = False
    retry_for_s: float = 0.0  # 0: until stopped
    run: str = ""  # what the Idempotency-Keys of this run begin with; "": none are sent


@dataclass(kw_only=True)
class ShipCounts:
    lines_read: int = 0
    records_accepted: int = 0
    records_rejected: int = 0
    lines_cut: int = 0
    empty_lines: int = 0
    requests: int = 0
    retries: int = 0
    truncations: int = 0
    bytes_sent: int = 0
    rejections: list[str] = field(default_factory=list)


class ShippedFile:
    """One file: where it is read, what waits to be sent, and how far it is remembered."""

    def __init__(self, *, tail: Tail, state: StateFile, saved: Position | None) -> None:
        self.tail, self.state = tail, state
        self.saved = saved
        self.pending: list[Line] = []
        self.pending_bytes = 0
        self.pending_since = 0.0
        self.pending_to: Position | None = None

    def remember(self, position: Position | None) -> None:
        if position is not None and position != self.saved:
            self.state.save(position)
            self.saved = position


class Shipper:
    def __init__(
        self,
        *,
        files: Sequence[ShippedFile],
        sender: Sender,
        head: bytes,
        encode: Callable[[Line], bytes],
        options: ShipOptions,
        clock: Clock,
        rng: Random,
        warn: Callable[[str], None],
        on_progress: Callable[[ShipCounts], None] | None = None,
    ) -> None:
        self._files, self._sender, self._head = files, sender, head
        self._encode, self._options = encode, options
        self._clock, self._rng, self._warn = clock, rng, warn
        self._on_progress = on_progress
        self._stop = threading.Event()
        self._chunks = 0
        self.counts = ShipCounts()

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> ShipCounts:
        """Until every file is at its end (or, following, until stopped)."""
        while not self._stop.is_set():
            busy = False
            for file in self._files:
                if self._stop.is_set():
                    break
                busy = self._advance(file) or busy
            if busy:
                continue
            if not self._options.follow:
                break
            self._clock.sleep(self._options.poll_s)
        for file in self._files:
            if file.pending and not self._send(file):
                break
        return self.counts

    def _advance(self, file: ShippedFile) -> bool:
        """Read on, and send when the batch is full or old enough. Whether there may be more."""
        options, tail = self._options, file.tail
        lines = tail.read(
            max_lines=options.max_records - len(file.pending),
            max_bytes=options.max_bytes - file.pending_bytes,
            to_the_end=not options.follow,
            stay=bool(file.pending),
        )
        now = self._clock.now()
        if lines:
            if not file.pending:
                file.pending_since = now
            file.pending += lines
            file.pending_bytes += sum(len(line.data) + 1 for line in lines)
            file.pending_to = tail.at(lines[-1].end)
            self.counts.lines_read += len(lines)
        self.counts.truncations = sum(each.tail.truncations for each in self._files)
        full = (
            len(file.pending) >= options.max_records
            or file.pending_bytes >= options.max_bytes
            # A line that no longer fits waits behind a batch that is not quite full.
            or bool(file.pending and not lines and tail.behind)
        )
        due = now - file.pending_since >= options.max_wait_s or not options.follow
        if file.pending and (full or (due and not lines)):
            self._send(file)
            return True
        if not file.pending:
            # Gone on to the next file of a rotation: remember that the last one is done.
            file.remember(tail.start)
        return bool(lines) or tail.behind

    # -- sending -----------------------------------------------------------------------------

    def _send(self, file: ShippedFile) -> bool:
        """Send what waits; only then move the remembered place."""
        if not self._deliver(file, file.pending):
            return False
        file.remember(file.pending_to)
        file.pending = []
        file.pending_bytes = 0
        file.pending_to = None
        if self._on_progress is not None:
            self._on_progress(self.counts)
        return True

    def _deliver(self, file: ShippedFile, lines: list[Line]) -> bool:
        """Whether the server has answered for each line, for good or ill."""
        bodies = [(line, data) for line in lines if (data := self._encode(line))]
        if not bodies:
            self._count(lines, bodies)
            return True
        body = b"\n".join(data for _, data in bodies)
        if self._options.gzip:
            body = gzip.compress(body, compresslevel=1, mtime=0)
        response = self._post_until_answered(body)
        if response is None:
            return False
        if 200 <= response.status < 300:
            self._accept(file, bodies, response)
        elif response.status == 413 and len(lines) > 1:
            middle = len(lines) // 2
            return self._deliver(file, lines[:middle]) and self._deliver(file, lines[middle:])
        elif response.status in _MISTAKEN or response.status < 400:
            raise ShipError(f"the server answered {response.status}: {detail_of(response)}")
        else:
            self.counts.records_rejected += len(bodies)
            self._reject(
                file, bodies[0][0], f"{response.status} {detail_of(response)}", len(bodies)
            )
        self._count(lines, bodies)
        return True

    def _count(self, lines: list[Line], bodies: list[tuple[Line, bytes]]) -> None:
        self.counts.empty_lines += len(lines) - len(bodies)
        self.counts.lines_cut += sum(1 for line in lines if line.cut)

    def _accept(
        self, file: ShippedFile, bodies: list[tuple[Line, bytes]], response: Response
    ) -> None:
        answer = read_acknowledgement(response.body)
        if answer is None or answer.accepted + answer.rejected != len(bodies):
            raise ShipError(
                f"the server answered {response.status} without saying that it took all "
                f"{len(bodies)} records: {detail_of(response)}. Is that URL a collector?"
            )
        self.counts.records_accepted += answer.accepted
        self.counts.records_rejected += answer.rejected
        for entry in answer.errors:
            if 0 <= entry.index < len(bodies):
                self._reject(file, bodies[entry.index][0], f"{entry.code} {entry.detail}", 1)

    def _reject(self, file: ShippedFile, line: Line, reason: str, count: int) -> None:
        if len(self.counts.rejections) < _KEPT_REASONS:
            more = f" and {count - 1:,} after it" if count > 1 else ""
            text = (
                f"{file.tail.path}: the line that ends at byte {line.end:,}{more} was rejected: "
                f"{reason}"
            )
            self.counts.rejections.append(text)
            self._warn(text)

    def _post_until_answered(self, body: bytes) -> Response | None:
        """None when it was stopped or the time for retries is over."""
        begun, attempt = self._clock.now(), 0
        self._chunks += 1
        key = f"{self._options.run}-{self._chunks}" if self._options.run else ""
        while True:
            self.counts.requests += 1
            retry_after, hint = None, ""
            try:
                response = self._sender.post(self._head, body, key=key)
            except NoAnswer as error:
                trouble = str(error)
                if not error.connected:
                    hint = ". If it is elsewhere, name the server with --url"
            else:
                if response.status not in (408, 409, 429) and response.status < 500:
                    self.counts.bytes_sent += len(body)
                    return response
                trouble = f"{response.status} {detail_of(response)}"
                retry_after = parse_retry_after(response.headers.get("retry-after", ""))
            if self._stop.is_set():
                self._warn(f"stopped before the server took the last batch: {trouble}")
                return None
            wait = wait_before_retry(attempt=attempt, retry_after_s=retry_after, rng=self._rng)
            limit = self._options.retry_for_s
            if limit and self._clock.now() + wait - begun > limit:
                raise ShipError(f"no success within {limit:g} s, last: {trouble}{hint}")
            if attempt in (0, 5) or attempt % 20 == 0:
                self._warn(f"{trouble}; trying again in {wait:.1f} s{hint}")
            attempt += 1
            self.counts.retries += 1
            self._clock.sleep(wait)
            if self._stop.is_set():
                self._warn("stopped while waiting to try again; the batch is sent next time")
                return None
