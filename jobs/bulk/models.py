"""An operator's action on many jobs, as a row that one runner or server carries out."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

RETRY, CANCEL, REPRIORITISE, DISCARD = "retry", "cancel", "reprioritise", "discard"
ACTIONS = (RETRY, CANCEL, REPRIORITISE, DISCARD)


class BulkAction(models.Model):
    """`selection` is a list of ids, or the filters that chose the jobs, up to `until_id`.

    Ids rise with time, so that jobs submitted after the operator looked are not touched.
    `position` is the last id that was dealt with; whoever holds the lease goes on from there.
    """

    action = models.CharField(max_length=12, choices=[(a, a) for a in ACTIONS])
    args = models.JSONField(default=dict, blank=True)
    selection = models.JSONField(default=dict)
    until_id = models.UUIDField(null=True, blank=True)
    position = models.UUIDField(null=True, blank=True)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    stopped = models.BooleanField(default=False, help_text="An operator had it stop.")
    expected = models.BigIntegerField(null=True, blank=True)
    looked_at = models.BigIntegerField(default=0)
    changed = models.BigIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True, default="")
    owner = models.CharField(max_length=100, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return self.action
