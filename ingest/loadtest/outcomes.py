"""Owns: what an answer, or none, makes of a request's records in the tally.

Runs on the generator's thread; no locks.
"""

from __future__ import annotations

from ingest.client.response import Response, detail_of, read_acknowledgement
from ingest.loadtest.records import Request
from ingest.loadtest.tally import ACKNOWLEDGED, MAYBE, REFUSED, REJECTED, Tally


class Outcomes:
    def __init__(self, tally: Tally, *, keyed: bool = False) -> None:
        """`keyed`: the server knows a repeat when it sees one."""
        self._tally, self._keyed = tally, keyed

    def succeeded(self, request: Request, response: Response, latency_s: float) -> None:
        """A 2xx, which counts only if it says what it accepted."""
        tally = self._tally
        answer = read_acknowledgement(response.body)
        if answer is None:
            tally.bad_answers += 1
            self.refused(request, f"{response.status} with an unreadable body")
            return
        tally.latencies.append(latency_s)
        tally.acks[answer.ack] += 1
        tally.replayed += "idempotency-replayed" in response.headers
        # Which of them were shed the answer does not say.
        self._settle(request, MAYBE if answer.shed else ACKNOWLEDGED)
        tally.records_shed += answer.shed
        for entry in answer.errors:
            tally.note(f"{entry.code}: {entry.detail}")
            if 0 <= entry.index < request.count:
                tally.fates[request.first + entry.index] = REJECTED
        tally.records_accepted += answer.accepted
        tally.records_rejected += answer.rejected
        short = request.count - answer.accepted - answer.rejected - answer.shed
        tally.records_unaccepted += max(short, 0)

    def failed(self, request: Request, response: Response) -> None:
        """An answer after which trying again would be no use."""
        if response.status >= 500:
            request.unanswered += 1  # the server failed at an unknown point
        self.refused(request, f"{response.status} {detail_of(response)}")

    def gave_up(self, request: Request, cause: str) -> None:
        attempts = f"{request.attempts} attempt{'' if request.attempts == 1 else 's'}"
        self.refused(request, f"gave up after {attempts}, last: {cause}")

    def refused(self, request: Request, reason: str = "") -> None:
        """None of its records is known to be stored. Without a reason, the run's end is why."""
        if reason:
            self._tally.note(reason)
        self._settle(request, REFUSED)
        self._tally.records_unaccepted += request.count

    def _settle(self, request: Request, fate: int) -> None:
        tally = self._tally
        tally.fates[request.first : request.first + request.count] = bytes([fate]) * request.count
        if request.unanswered:
            allowed = 1 if self._keyed else request.unanswered + (fate == ACKNOWLEDGED)
            tally.allowed.update(dict.fromkeys(request.sequence, allowed))
