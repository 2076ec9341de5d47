"""A job, its story and its runner as MemoryStore keeps them; fields as those of the models."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobs.store.protocol import Claimed, Draft, StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEvent:
    at: datetime
    state: str
    claim: int
    attempt: int
    worker: str
    text: str


@dataclass(slots=True, kw_only=True)
class KeptRunner:
    host: str
    pid: int
    process: str = ""
    beats: int = 0
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class KeptJob:
    """`state` is "" until the job is entered into its first."""

    id: UUID
    type_id: int
    tenant: str
    payload: Any
    priority: int
    correlation_id: str
    service: str
    submitted_by: str
    request_id: str
    traceparent: str
    webhook_url: str
    schedule: str
    created_at: datetime
    run_at: datetime
    deadline_at: datetime | None
    state: str = ""
    reason: str = ""
    attempts: int = 0
    claim: int = 0
    retries: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    runner: str = ""
    worker: str = ""
    cancel_asked_at: datetime | None = None
    result: Any = None
    error: str = ""
    steps: dict[str, StepRecord] = field(default_factory=dict)
    events: list[KeptEvent] = field(default_factory=list)

    @classmethod
    def of(cls, draft: Draft, payload: Any, now: datetime) -> KeptJob:
        run_at = max(draft.run_at or now, now)
        deadline_at = draft.deadline_at
        if deadline_at is None and draft.deadline_s is not None:
            deadline_at = run_at + timedelta(seconds=draft.deadline_s)
        return cls(
            id=draft.id,
            type_id=draft.type_id,
            tenant=draft.tenant,
            payload=payload,
            priority=draft.priority,
            correlation_id=draft.correlation_id,
            service=draft.service,
            submitted_by=draft.submitted_by,
            request_id=draft.request_id,
            traceparent=draft.traceparent,
            webhook_url=draft.webhook_url,
            schedule=draft.schedule,
            created_at=now,
            run_at=run_at,
            deadline_at=deadline_at,
        )

    def claimed(self, now: datetime) -> Claimed:
        """What its runner is told at a claim that was made now."""
        left_s = None if self.deadline_at is None else (self.deadline_at - now).total_seconds()
        return Claimed(
            id=self.id,
            type_id=self.type_id,
            claim=self.claim,
            attempts=self.attempts,
            payload=self.payload,
            tenant=self.tenant,
            priority=self.priority,
            correlation_id=self.correlation_id,
            service=self.service,
            traceparent=self.traceparent,
            webhook_url=self.webhook_url,
            created_at=self.created_at,
            deadline_in_s=left_s,
            waited_s=max(0.0, (now - self.run_at).total_seconds()),
            steps=dict(self.steps),
        )
