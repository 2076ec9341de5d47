"""What becomes of what was found: a target's memory takes it in, and a change goes out.

Runs on the event loop; no locks.  Nothing changes a memory but under the lease by which its target
is held: a change that may not go out must not be remembered either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from healthmon.checker.entry import Entry
from healthmon.checker.evenclock import EvenClock
from healthmon.checker.figures import Figures
from healthmon.checker.judge import blind_after_s
from healthmon.probes.kind import VOID, Result
from healthmon.truth import machine
from healthmon.truth.changes import Change
from healthmon.truth.machine import Move


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Whom the checker's loop tells: where results and changes go, who counts, who looks on.

    `count(kind, outcome, seconds, lag_s)`, `status(target, status)`, `certificate(target_id,
    expires_us)`.
    """

    result: Callable[[int, str, int, Result], None]
    flip: Callable[[Change], None]
    count: Callable[[str, str, float, float], None] = lambda kind, outcome, seconds, lag_s: None
    status: Callable[[str, str], None] = lambda target, status: None
    certificate: Callable[[int, int], None] = lambda target_id, expires_us: None


class Statuses:
    """`epoch_of(slot)` is the epoch of the lease held, None for a slot that is not ours."""

    def __init__(
        self,
        *,
        heard: Heard,
        time: EvenClock,
        figures: Figures,
        checker: str,
        epoch_of: Callable[[int], int | None],
    ) -> None:
        self._heard = heard
        self._time = time
        self._figures = figures
        self._checker = checker
        self._epoch_of = epoch_of

    def is_ours(self, entry: Entry) -> bool:
        """Whether its slot's lease is held still, as it was when the target came."""
        return self._epoch_of(entry.spec.slot) == entry.epoch

    def blind_s(self, entry: Entry) -> float:
        """For how long nobody has looked."""
        return self._time.monotonic() - entry.blind_since_s

    # --- what operators want ---------------------------------------------------------------

    def pause(self, entry: Entry) -> None:
        if self.is_ours(entry):
            self._moved(
                entry, machine.pause(entry.memory, self._time.now_us(), "paused by an operator")
            )

    def resume(self, entry: Entry) -> None:
        if self.is_ours(entry):
            self._moved(
                entry, machine.resume(entry.memory, self._time.now_us(), "resumed by an operator")
            )
            entry.blind_since_s = self._time.monotonic()

    def in_window(self, entry: Entry, title: str | None) -> None:
        """It is in a maintenance window of this title, or in none."""
        if self.is_ours(entry):
            said = title or "the maintenance window is over"
            now_us = self._time.now_us()
            self._moved(entry, machine.maintenance(entry.memory, title is not None, now_us, said))

    def broken(self, entry: Entry) -> None:
        """It cannot be probed as it is: nothing is known of it."""
        if self.is_ours(entry):
            reason = f"misconfigured: {entry.spec.broken}"
            rules, now_us = entry.spec.rules, self._time.now_us()
            self._moved(entry, machine.missed(entry.memory, rules, now_us, reason))

    # --- what was found, or could not be ---------------------------------------------------

    def missed(self, entry: Entry, reason: str) -> None:
        """A whole window went by in which nobody could look; dated when it ended."""
        if not self.is_ours(entry):
            return
        blind_since_us = self._time.stored_us(entry.blind_since_s)
        at_us = max(blind_since_us, entry.memory.since_us) + round(entry.spec.interval_s * 1e6)
        at_us = min(at_us, self._time.now_us())
        self._moved(entry, machine.missed(entry.memory, entry.spec.rules, at_us, reason))

    def take_in(self, entry: Entry, at_us: int, result: Result, *, lag_s: float) -> None:
        """A judged result; `at_us` is when its probe began."""
        spec = entry.spec
        if not self.is_ours(entry):
            return
        self._figures.probes += 1
        self._heard.count(spec.kind_name, result.outcome, result.total_ms / 1000, lag_s)
        self._heard.result(spec.id, spec.name, at_us, result)
        if result.cert_expires_us and result.cert_expires_us != entry.cert_expires_us:
            entry.cert_expires_us = result.cert_expires_us
            self._heard.certificate(spec.id, result.cert_expires_us)
        if result.outcome == VOID:
            self._figures.voided += 1
            # A heartbeat's is told only where a ping is missing or cannot be known of.
            if spec.passive or self.blind_s(entry) > blind_after_s(spec):
                self.missed(entry, result.error)
            return
        move = machine.observe(entry.memory, spec.rules, result.outcome, at_us, result.error)
        if move is not None:
            self._moved(entry, move)
        entry.blind_since_s = self._time.monotonic()

    def _moved(self, entry: Entry, move: Move | None) -> None:
        """A change goes out, under the lease by which it was found."""
        if move is None:
            return
        spec = entry.spec
        self._figures.flips += 1
        self._heard.status(spec.name, move.to_status)
        self._heard.flip(
            Change(
                target_id=spec.id,
                target=spec.name,
                seq=move.seq,
                from_status=move.from_status,
                to_status=move.to_status,
                at_us=move.at_us,
                reason=move.reason,
                flapping=move.flapping,
                slot=spec.slot,
                epoch=entry.epoch,
                checker=self._checker,
                cert_expires_us=entry.cert_expires_us,
            )
        )
