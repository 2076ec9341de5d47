"""Offering a request's records to the engine, under the claim of its key if it has one.

Runs on the request's thread.
"""

from __future__ import annotations

from ingest import metrics
from ingest.api.keyed import Keyed
from ingest.wire.decode import Decoded
from ingest.wire.kinds import Kind
from pipeline.engine import Engine
from pipeline.errors import Refused
from pipeline.receipt import Receipt


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
    ) -> None:
        self.durable = durable
        # Records that a process which died before it could answer had taken.
        self.kept_before = 0
        # The tenants whose frames are in this process's log.
        self.kept: list[str] = []
        self._engine, self._kind, self._claimed = engine, kind, claimed
        self._request_id, self._traceparent = request_id, traceparent

    def make(self, decoded: Decoded) -> list[Receipt]:
        claimed = self._claimed
        if claimed is None:
            return self._each(decoded, list(decoded.records))
        missing = claimed.missing(list(decoded.records))
        for tenant, records in decoded.records.items():
            if tenant not in missing:
                self.kept_before += len(records)
        try:
            return self._each(decoded, missing)
        except BaseException:
            claimed.give_back()
            raise

    def _each(self, decoded: Decoded, tenants: list[str]) -> list[Receipt]:
        receipts: list[Receipt] = []
        if len(tenants) > 1:
            tenants = sorted(tenants, key=lambda tenant: -len(decoded.records[tenant]))
        for tenant in tenants:
            records = decoded.records[tenant]
            try:
                receipt = self._engine.offer(
                    type=self._kind.type,
                    tenant=tenant,
                    records=records,
                    request_id=self._request_id,
                    traceparent=self._traceparent,
                    durable=self.durable,
                    key=self._claimed.frame_key(tenant) if self._claimed is not None else "",
                )
            except Refused as error:
                if not receipts:
                    raise
                metrics.count_error(error.reason, len(records))
                for index in decoded.indexes[tenant]:
                    decoded.reject(index, error.reason, str(error))
            else:
                receipts.append(receipt)
                self.kept.append(tenant)
                metrics.count_records(self._kind.type, tenant, len(records))
        return receipts
