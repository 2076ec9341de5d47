"""Sinks as rows: which backend, its options, what is routed to it, and how it is fed.

Plain data: reading options with their secrets is `sinks.configuration`, running them
`sinks.service`.  A row's id is the identity of its pipeline and outlives every change.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models

from sinks.deadletters.models import DeadLetter, DeadLetterAction, DeadLetterTally, RedriveTask

__all__ = [
    "DeadLetter",
    "DeadLetterAction",
    "DeadLetterTally",
    "RedriveTask",
    "SinkChange",
    "SinkConfig",
]

MIN_LEVELS = [
    ("", "every level"),
    ("DEBUG", "DEBUG and above"),
    ("INFO", "INFO and above"),
    ("WARN", "WARN and above"),
    ("ERROR", "ERROR and above"),
    ("FATAL", "FATAL only"),
]

name_validator = RegexValidator(
    r"\A[\w][\w .:/-]*\Z", "Use letters, digits, spaces and . : / _ - and begin with a letter."
)


class SinkConfig(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    backend = models.CharField(max_length=200)
    options = models.JSONField(default=dict, blank=True)
    # Option name -> encrypted value; a secret given as env:NAME stands in `options`.
    secrets = models.JSONField(default=dict, blank=True, editable=False)
    required = models.BooleanField(
        default=True,
        help_text="When full, requests are refused (429). An optional sink drops its oldest "
        "records instead, and counts them.",
    )
    enabled = models.BooleanField(
        default=True,
        help_text="A disabled sink takes nothing new and delivers what it holds.",
    )
    paused = models.BooleanField(
        default=False, help_text="A paused sink keeps taking records in and delivers none."
    )
    route_types = models.JSONField(default=list, blank=True)
    route_tenants = models.JSONField(default=list, blank=True)
    min_level = models.CharField(
        "minimum level", max_length=5, choices=MIN_LEVELS, blank=True, default=""
    )
    pipeline = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        verbose_name = "sink"

    def __str__(self) -> str:
        return self.name


class SinkChange(models.Model):
    """One change of a sink's settings: who made it, and what differs, secrets hidden.

    It outlives the sink, which it knows by its key and the name that it had.
    """

    ADDED, CHANGED, REMOVED = "added", "changed", "removed"
    ACTIONS = [(one, one) for one in (ADDED, CHANGED, REMOVED)]

    at = models.DateTimeField(db_index=True)
    key = models.CharField(max_length=200)
    name = models.CharField(max_length=100)
    action = models.CharField(max_length=7, choices=ACTIONS)
    who = models.CharField(max_length=150, blank=True, default="")
    # Setting -> [before, after]; None where it was the installation's default.
    fields = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-at", "-id"]
        verbose_name = "change of a sink"
        verbose_name_plural = "changes of sinks"

    def __str__(self) -> str:
        return f"{self.name} {self.action} at {self.at:%H:%M:%S}"
