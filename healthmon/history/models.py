"""Results and their rollups, in the records database; written in bulk by the `results` sink.

`id` is the record's, time-ordered by arrival; there are no foreign keys, as targets are in the
other database.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models


class ResultIdField(models.BigIntegerField):  # type: ignore[type-arg]
    """A record's id: bigint, and on SQLite the row id itself."""

    def db_type(self, connection: Any) -> str:
        return "integer" if connection.vendor == "sqlite" else "bigint"


class ProbeResult(models.Model):
    """One probe's result.  Phases that did not happen are null."""

    id = ResultIdField(primary_key=True)
    timestamp = models.DateTimeField(help_text="When the probe began.")
    target_id = models.BigIntegerField()
    outcome = models.TextField(help_text="ok, degraded, failed or void (the checker's own fault).")
    latency_ms = models.FloatField()
    dns_ms = models.FloatField(null=True)
    connect_ms = models.FloatField(null=True)
    tls_ms = models.FloatField(null=True)
    first_byte_ms = models.FloatField(null=True)
    code = models.IntegerField(default=0)
    address = models.TextField(blank=True, default="")
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "probe result"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["target_id", "id"], name="healthmon_result_target")
        ]

    def __str__(self) -> str:
        return f"{self.target_id}: {self.outcome}"


MINUTE, HOUR, DAY = 60, 3600, 86_400


class Rollup(models.Model):
    """What a target's results came to in one minute, hour or day.

    `histogram` is a mergeable histogram of latencies in logarithmic buckets.
    """

    target_id = models.BigIntegerField()
    span_s = models.IntegerField()
    start = models.DateTimeField()
    ok = models.IntegerField(default=0)
    degraded = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    void = models.IntegerField(default=0)
    latency_sum_ms = models.FloatField(default=0)
    latency_max_ms = models.FloatField(default=0)
    histogram = models.BinaryField(default=b"")

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["target_id", "span_s", "start"], name="healthmon_rollup_once"
            )
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["span_s", "start"], name="healthmon_rollup_start")
        ]

    def __str__(self) -> str:
        return f"{self.target_id}: {self.start:%Y-%m-%d %H:%M}"


class RollupDue(models.Model):
    """A time that has results, and whether they have changed since it was last rolled up.

    Those of minutes stay as long as the results: `first_id` to `last_id` are the ids among which
    the minute's results are, whenever they came.  `touches` counts the changes.
    """

    span_s = models.IntegerField()
    start = models.DateTimeField()
    due = models.BooleanField(default=True)
    touches = models.BigIntegerField(default=1)
    first_id = models.BigIntegerField(default=0)
    last_id = models.BigIntegerField(default=0)
    touched_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["span_s", "start"], name="healthmon_rollup_due_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["span_s", "start"],
                name="healthmon_rollup_due",
                condition=models.Q(due=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.span_s}: {self.start:%Y-%m-%d %H:%M}"
