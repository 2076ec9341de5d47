"""What is said to an offer that one sink has no room for: why, and when to come back.

Pure; whoever holds a sink's room makes a `Standing` of it, as it is at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import Saturated, TooLarge
from pipeline.intake.shares import Shares
from pipeline.settings import PipelineSettings

RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 1.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one sink holds of its room, and how fast that leaves.

    `age_s` is for how long it has held anything, for while nobody knows the rate.
    """

    name: str
    settings: PipelineSettings
    records: int
    nbytes: int
    refusing: bool
    rate: float
    age_s: float

    # --- how much, how long ------------------------------------------------------------------

    @property
    def _weight(self) -> float:
        """The bytes of a record, as those that are held have it."""
        return max(self.nbytes / self.records, 1.0) if self.records else 1.0

    @property
    def _excess(self) -> float:
        """The records that must leave before the low mark is reached, by the scarcer capacity."""
        settings = self.settings
        records = self.records - settings.low_watermark * settings.capacity_records
        nbytes = self.nbytes - settings.low_watermark * settings.backlog_max_bytes
        return max(records, nbytes / self._weight, 0.0)

    def _seconds(self, excess: float, rate: float) -> float:
        """How long so many records take to leave."""
        # While nothing has left yet nobody knows the rate: come back after as long again.
        seconds = excess / rate if rate > 0 else self.age_s
        return min(max(seconds, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)

    def remaining(self) -> tuple[int, float]:
        """How many more records would be admitted, and the seconds until the low mark is reached.

        Where bytes are scarcer, as many as fit if they weigh what those held do.
        """
        settings = self.settings
        records = settings.high_watermark * settings.capacity_records - self.records
        nbytes = settings.high_watermark * settings.backlog_max_bytes - self.nbytes
        left = max(0, int(min(records, nbytes / self._weight)))
        return (0 if self.refusing else left), self._seconds(self._excess, self.rate)

    # --- the refusals ------------------------------------------------------------------------

    def too_large(self, records: int, nbytes: int) -> TooLarge:
        """It would not fit if nothing else were held."""
        settings = self.settings
        return TooLarge(
            f"{records} records of {nbytes} bytes can never fit into sink {self.name!r}, "
            f"which holds {settings.capacity_records} records and "
            f"{settings.backlog_max_bytes} bytes: send less in one request",
            limit=f"capacity_records={settings.capacity_records}, "
            f"backlog_max_bytes={settings.backlog_max_bytes}",
        )

    def no_room(self, records: int, nbytes: int) -> Saturated:
        """Come back when what must leave has left: down to the low mark, or until this fits."""
        settings = self.settings
        over = max(
            self.records + records - settings.capacity_records,
            (self.nbytes + nbytes - settings.backlog_max_bytes) / self._weight,
        )
        seconds = self._seconds(max(over, self._excess if self.refusing else 0.0), self.rate)
        return Saturated(self._filled(), retry_after_s=seconds)

    def _filled(self) -> str:
        settings = self.settings
        said = (
            f"sink {self.name!r} holds {self.records} records of {settings.capacity_records} and "
            f"{self.nbytes} bytes of {settings.backlog_max_bytes}, and drains {self.rate:.0f} "
            "records a second"
        )
        if not self.refusing:
            return said
        low = settings.low_watermark
        again = []
        if self.records > (records := int(low * settings.capacity_records)):
            again.append(f"{records} records")
        if self.nbytes > (nbytes := int(low * settings.backlog_max_bytes)):
            again.append(f"{nbytes} bytes")
        return f"{said}; it admits again once it holds at most {' and '.join(again)}"

    def beyond_share(
        self, shares: Shares, tenant: str, records: int, nbytes: int, *, now: float
    ) -> Saturated:
        """Come back when so much of the tenant's own has left that it is within its fair share."""
        one, active = shares.of(tenant), max(shares.active, 1)
        others = shares.waiting - (one.waits_until != 0.0)
        settings = self.settings
        share = settings.capacity_records // active
        excess = max(
            one.records + records - share,
            (one.nbytes + nbytes - settings.backlog_max_bytes / active) / self._weight,
        )
        return Saturated(
            f"tenant {tenant!r} holds {one.records} records in sink {self.name!r}, of which its "
            f"fair share is {share} while others wait ({others} of {active} active tenants)",
            retry_after_s=self._seconds(excess, one.drain_rate(now)),
        )
