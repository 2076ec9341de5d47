"""The ledger: how every accepted record has ended, per sink and tenant.

The law, for each sink and tenant:

    accepted + redriven = stored + already_stored + dead_lettered + sum(dropped) + in_flight

`in_flight` is counted where records are held and handed in, never derived, so a record that is
lost without a word shows as an imbalance of its size.  `_lock` guards the tallies.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import msgspec

OTHER_TENANTS = "(other)"


class Tally(msgspec.Struct):
    """Records of one sink and tenant, by how they ended; `dropped` by reason.

    `passed` are those of `accepted` that stand in no file of a log that has files: no sink took
    them, or the disk did not.
    """

    accepted: int = 0
    redriven: int = 0
    stored: int = 0
    already_stored: int = 0
    dead_lettered: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    passed: int = 0

    @property
    def ended(self) -> int:
        return self.stored + self.already_stored + self.dead_lettered + sum(self.dropped.values())

    def imbalance(self, in_flight: int) -> int:
        """Records taken in that have neither ended nor are held anywhere; 0 when all is well."""
        return self.accepted + self.redriven - self.ended - in_flight

    def copy(self) -> Tally:
        return Tally(
            self.accepted,
            self.redriven,
            self.stored,
            self.already_stored,
            self.dead_lettered,
            dict(self.dropped),
            self.passed,
        )


class Ledger:
    """The tallies of one log.  Tenants beyond `max_tenants` a ledger share the tally `(other)`."""

    def __init__(self, *, max_tenants: int = 1_000) -> None:
        self._lock = threading.Lock()
        self._max = max_tenants
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._unnoted: set[tuple[str, str]] = set()

    def _tally(self, sink: str, tenant: str) -> Tally:
        tally = self._tallies.get((sink, tenant))
        if tally is None:
            if len(self._tallies) >= self._max:
                tenant = OTHER_TENANTS
            tally = self._tallies.setdefault((sink, tenant), Tally())
        return tally

    def accepted(self, sink: str, tenant: str, count: int, *, unlogged: bool = False) -> None:
        with self._lock:
            tally = self._tally(sink, tenant)
            tally.accepted += count
            if unlogged:
                tally.passed += count

    def stored(self, sink: str, tenant: str, count: int, *, already: bool = False) -> None:
        with self._lock:
            tally = self._tally(sink, tenant)
            if already:
                tally.already_stored += count
            else:
                tally.stored += count

    def dropped(self, sink: str, tenant: str, count: int, *, reason: str) -> None:
        with self._lock:
            dropped = self._tally(sink, tenant).dropped
            dropped[reason] = dropped.get(reason, 0) + count

    def passed_by(self, sink: str, tenant: str, count: int, *, reason: str) -> None:
        """Records taken in and dropped in one step, as nobody held them in between."""
        with self._lock:
            tally = self._tally(sink, tenant)
            tally.accepted += count
            tally.passed += count
            tally.dropped[reason] = tally.dropped.get(reason, 0) + count
            self._unnoted.add((sink, tenant))

    def dead_lettered(self, sink: str, tenant: str, count: int) -> None:
        with self._lock:
            self._tally(sink, tenant).dead_lettered += count

    def redriven(self, sink: str, tenant: str, count: int) -> None:
        with self._lock:
            self._tally(sink, tenant).redriven += count

    def tally_of(self, sink: str, tenant: str) -> tuple[str, Tally]:
        """A copy of the tally that a tenant's records are counted in, and the tenant of its key."""
        with self._lock:
            if (sink, tenant) not in self._tallies:
                tenant = OTHER_TENANTS
            return tenant, self._tallies.get((sink, tenant), Tally()).copy()

    def take_unnoted(self) -> list[tuple[str, str]]:
        """The keys of tallies that changed without anything that notes it; asked for once."""
        with self._lock:
            keys = [key for key in self._unnoted if key in self._tallies]
            self._unnoted.clear()
            return keys

    def restore(self, sink: str, tenant: str, tally: Tally) -> None:
        """A tally as a checkpoint has it."""
        with self._lock:
            self._tallies[sink, tenant] = tally.copy()

    def carry_on(self, sink: str, tenant: str, later: Tally) -> None:
        """A later state of a tally, but for its frames, which are counted as they are found."""
        with self._lock:
            tally = self._tallies.setdefault((sink, tenant), Tally())
            accepted = tally.accepted + later.passed - tally.passed
            self._tallies[sink, tenant] = later.copy()
            self._tallies[sink, tenant].accepted = accepted

    def tallies(self, sink: str | None = None) -> dict[tuple[str, str], Tally]:
        """A copy of all tallies, or of one sink's, by sink and tenant."""
        with self._lock:
            return {
                key: tally.copy()
                for key, tally in self._tallies.items()
                if sink is None or key[0] == sink
            }

    def by_tally(self, sink: str, in_flight: Mapping[str, int]) -> dict[tuple[str, str], int]:
        """What is held for a sink by tenant, under the keys of the tallies it belongs to."""
        held: dict[tuple[str, str], int] = {}
        with self._lock:
            for tenant, count in in_flight.items():
                key = (sink, tenant)
                if key not in self._tallies:
                    key = (sink, OTHER_TENANTS)
                held[key] = held.get(key, 0) + count
        return held
