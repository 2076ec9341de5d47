"""The control plane's models, each kept in its room."""

from __future__ import annotations

from control.auth.models import ApiKey, Tenant
from control.idempotency.models import IdempotencyKey
from control.outbox.models import OutboxAttempt, OutboxMessage
from control.processes.models import IdNode, PipelineSample, Process, ProcessRequest, WorkerRun

__all__ = [
    "ApiKey",
    "IdNode",
    "IdempotencyKey",
    "OutboxAttempt",
    "OutboxMessage",
    "PipelineSample",
    "Process",
    "ProcessRequest",
    "Tenant",
    "WorkerRun",
]
