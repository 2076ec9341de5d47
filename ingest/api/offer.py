"""Offering a request's records to the engine, under the claim of its Idempotency-Key and the rate
limit of its API key, if it has them.

Runs on the request's thread.
"""

from __future__ import annotations

from control.auth.limits import KeyLimit
from ingest import metrics
from ingest.api import ratelimit
from ingest.api.keyed import Keyed
from ingest.api.patience import Patience
from ingest.wire.decode import Decoded
from ingest.wire.kinds import Kind
from pipeline.engine import Engine
from pipeline.errors import Refused, Saturated
from pipeline.receipt import Receipt
from pipeline.record import Record


class Offer:
    """One offer a tenant, the largest first.

    The first refusal is the request's, while nothing of it is held.  A later one, which only
    a request for several tenants can meet, rejects that tenant's records one by one.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        kind: Kind,
        request_id: str,
        traceparent: str,
        durable: bool,
        claimed: Keyed | None,
        limit: KeyLimit | None,
        patience: Patience,
        nbytes: int,
    ) -> None:
        self.durable = durable
        # Records that a process which died before it could answer had taken.
        self.kept_before = 0
        # The tenants whose frames are in this process's log.
        self.kept: list[str] = []
        self._engine, self._kind, self._claimed = engine, kind, claimed
        self._limit, self._patience = limit, patience
        # The body's own size, for that of its records: about what they weigh.
        self._nbytes = nbytes
        self._request_id, self._traceparent = request_id, traceparent

    def make(self, decoded: Decoded) -> list[Receipt]:
        claimed = self._claimed
        if claimed is None:
            return self._charged(decoded, list(decoded.records))
        missing = claimed.missing(list(decoded.records))
        for tenant, records in decoded.records.items():
            if tenant not in missing:
                self.kept_before += len(records)
        try:
            return self._charged(decoded, missing)
        except BaseException:
            claimed.give_back()
            raise

    def _charged(self, decoded: Decoded, tenants: list[str]) -> list[Receipt]:
        """Only now is it known how many records there are; what is refused is given back."""
        limit = self._limit
        if limit is None:
            return self._each(decoded, tenants)
        charged = sum(len(decoded.records[tenant]) for tenant in tenants)
        if charged and (due_s := limit.charge(charged)):
            raise ratelimit.rate_limited(limit, due_s)
        taken = 0
        try:
            receipts = self._each(decoded, tenants)
            taken = sum(receipt.count + receipt.shed for receipt in receipts)
        finally:
            if taken < charged:
                limit.give_back(charged - taken)
        return receipts

    def _each(self, decoded: Decoded, tenants: list[str]) -> list[Receipt]:
        receipts: list[Receipt] = []
        if len(tenants) > 1:
            tenants = sorted(tenants, key=lambda tenant: -len(decoded.records[tenant]))
        for tenant in tenants:
            records = decoded.records[tenant]
            try:
                receipt = self._offer(tenant, records, may_wait=not receipts)
            except Refused as error:
                if not receipts:
                    raise
                metrics.count_error(error.reason, len(records))
                for index in decoded.indexes[tenant]:
                    decoded.reject(index, error.reason, str(error))
            else:
                receipts.append(receipt)
                self.kept.append(tenant)
                metrics.count_records(self._kind.type, tenant, receipt.count)
        return receipts

    def _offer(self, tenant: str, records: list[Record], *, may_wait: bool) -> Receipt:
        while True:
            try:
                return self._engine.offer(
                    type=self._kind.type,
                    tenant=tenant,
                    records=records,
                    request_id=self._request_id,
                    traceparent=self._traceparent,
                    durable=self.durable,
                    key=self._claimed.frame_key(tenant) if self._claimed is not None else "",
                    sheddable=self._kind.levelled,
                )
            except Saturated as error:
                if not may_wait or not self._patience.has_more:
                    raise
                # It waits here instead of coming back; if in vain, it is told anew when to.
                error.taken_back()
                refused = self._patience.await_more(tenant, len(records), self._nbytes)
                if refused is not None:
                    raise refused from None
