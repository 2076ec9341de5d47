"""Checkers and the slots they hold, in the control database."""

from __future__ import annotations

from django.db import models


class Checker(models.Model):
    """A living checker process."""

    id = models.CharField(primary_key=True, max_length=64)
    host = models.CharField(max_length=255, blank=True, default="")
    pid = models.IntegerField(default=0)
    log_id = models.CharField(max_length=64, blank=True, default="")
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class ProbeSlot(models.Model):
    """One share of the targets.  `epoch` grows each time that another checker takes it."""

    slot = models.SmallIntegerField(primary_key=True)
    holder = models.CharField(max_length=64, blank=True, default="")
    epoch = models.BigIntegerField(default=0)
    taken_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.slot}: {self.holder}"
