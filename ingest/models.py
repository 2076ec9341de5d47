"""Stored records as Django models, in the database alias `records`.

Rows are written by sinks through the table specs of `ingest.tables`, in bulk and never through
`save()`; the models serve the admin and queries.  On PostgreSQL each table is partitioned by
ranges of `id`, which is time-ordered by arrival, so there are no unique keys but the id, no
foreign keys, and the newest rows come first by id.  Counters are merged instead (see
`ingest.counters`): their tables are plain, and as large as there are counters.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models


class RecordIdField(models.BigIntegerField):  # type: ignore[type-arg]
    """A record's id: bigint, and on SQLite the row id itself, which saves the table an index."""

    def db_type(self, connection: Any) -> str:
        return "integer" if connection.vendor == "sqlite" else "bigint"


class StoredRecord(models.Model):
    """What every record has, whatever its type."""

    id = RecordIdField(primary_key=True)
    timestamp = models.DateTimeField(help_text="When it happened, by the sender's clock.")
    received_at = models.DateTimeField(help_text="When this server took it in.")
    tenant = models.TextField()
    payload = models.JSONField(help_text="The JSON as it was sent.")

    class Meta:
        abstract = True


class LogRecord(StoredRecord):
    """One log line."""

    level = models.TextField(help_text="TRACE, DEBUG, INFO, WARN, ERROR or FATAL.")
    service = models.TextField(blank=True)
    message = models.TextField(blank=True)
    trace_id = models.TextField(blank=True)
    span_id = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "log record"

    def __str__(self) -> str:
        return f"{self.level} {self.service}: {self.message[:80]}"


class HealthPing(StoredRecord):
    """One statement of a service about its own health."""

    service = models.TextField()
    status = models.TextField(help_text="up, degraded or down.")
    latency_ms = models.FloatField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "health ping"

    def __str__(self) -> str:
        return f"{self.service} {self.status}"


class AuditEvent(StoredRecord):
    """One action of one user."""

    user_id = models.TextField()
    action = models.TextField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "audit event"

    def __str__(self) -> str:
        return f"{self.user_id} {self.action}"


class Counter(models.Model):
    """What the increments of one tenant, name and labels came to."""

    key = models.CharField(max_length=32, primary_key=True, editable=False)
    tenant = models.TextField()
    name = models.TextField()
    labels = models.JSONField(default=dict)
    value = models.BigIntegerField(help_text="The sum; it stops at ±9,223,372,036,854,775,807.")
    increments = models.BigIntegerField(help_text="How many records added to it.")
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["tenant", "name", "key"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "name", "key"], name="ingest_counter_name"),
        ]

    def __str__(self) -> str:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(self.labels.items()))
        text = f"{self.name}{{{labels}}}" if labels else self.name
        # Where Django names an object, nobody else writes out what changes how text reads.
        return "".join(
            letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
        )


class CounterPoint(models.Model):
    """What one minute of arrival added to a counter."""

    pk = models.CompositePrimaryKey("counter", "minute")
    counter = models.CharField(max_length=32)
    minute = models.DateTimeField()
    added = models.BigIntegerField()
    increments = models.BigIntegerField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["minute"], name="ingest_counterpoint_minute"),
        ]

    def __str__(self) -> str:
        return f"{self.counter} {self.minute:%Y-%m-%d %H:%M} {self.added:+}"
