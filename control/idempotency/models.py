"""Idempotency keys as rows: who claimed one, for which body, and what was answered."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models

PENDING, PARTIAL, DONE = "pending", "partial", "done"
MAX_KEY_CHARS = 255


class IdempotencyKey(models.Model):
    """One key that a request of one tenant carried to one address.

    `pending`: the process whose log is `log_id` is taking the request in, or died while it was.
    `partial`: it died, and only the parts in `kept` are in its log; the next such request adds the
    others.  `done`: the records are in a log, and `status` and `response` are the answer.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.CharField(max_length=63)
    path = models.CharField(max_length=64)
    key = models.CharField(max_length=MAX_KEY_CHARS)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the body and its format.")
    state = models.CharField(
        max_length=8,
        default=PENDING,
        choices=[(state, state) for state in (PENDING, PARTIAL, DONE)],
    )
    log_id = models.CharField(max_length=64, blank=True, default="")
    parts = models.JSONField(default=list, help_text="What must be in a log for all to be kept.")
    kept = models.JSONField(default=list, blank=True, help_text="What is known to be in one.")
    status = models.PositiveSmallIntegerField()
    response = models.TextField()
    claimed_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-claimed_at", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["tenant", "path", "key"], name="control_idempotency_once"
            )
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["log_id"],
                name="control_idempotency_open",
                condition=models.Q(state=PENDING),
            )
        ]

    def __str__(self) -> str:
        return f"{self.path} {self.key} of {self.tenant}"
