"""Dead letters as rows: the letters, their tally by sink, who did what, and redrives under way.

Plain data.  A letter's state is changed only together with its sink's tally, in one transaction
that locks the tally first (`sinks.deadletters.tally`).
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models

WAITING, REDRIVING, REDRIVEN = "waiting", "redriving", "redriven"
DISCARDED, EXPIRED = "discarded", "expired"
STATES = (WAITING, REDRIVING, REDRIVEN, DISCARDED, EXPIRED)
ENDED = (REDRIVEN, DISCARDED, EXPIRED)

NAME_LENGTH = 255
ERROR_LENGTH = 8_000
PATTERN_LENGTH = 200


class RedriveTask(models.Model):
    """Letters of one sink on their way back to it, in numbered chunks.

    `origin` names the batches of the redrive: a chunk sent again under its number is the same
    batch.  `attempt` is the fence: it grows with each owner, and who holds an older one writes
    nothing.  Letters are claimed by id above `cursor` and up to `up_to`.
    """

    PREPARED, RUNNING, DONE, CANCELLED, FAILED = (
        "prepared", "running", "done", "cancelled", "failed",
    )  # fmt: skip
    OPEN = (PREPARED, RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    sink = models.CharField(max_length=64)
    sink_name = models.CharField(max_length=NAME_LENGTH)
    selection = models.JSONField(default=dict)
    said = models.CharField(max_length=500, blank=True, default="")
    asked_by = models.CharField(max_length=NAME_LENGTH)
    state = models.CharField(
        max_length=10, default=PREPARED, choices=[(s, s) for s in (*OPEN, DONE, CANCELLED, FAILED)]
    )
    cancelling = models.BooleanField(default=False)
    note = models.CharField(max_length=1000, blank=True, default="")
    total = models.BigIntegerField(null=True)
    claimed = models.BigIntegerField(default=0)
    stored = models.BigIntegerField(default=0)
    already_stored = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    chunks = models.BigIntegerField(default=0)
    cursor = models.BigIntegerField(default=0)
    up_to = models.BigIntegerField()
    owner = models.CharField(max_length=64, blank=True, default="")
    lease_until = models.DateTimeField(null=True)
    attempt = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at"]
        verbose_name = "redrive"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["created_at"],
                name="sinks_redrive_open",
                condition=models.Q(state__in=("prepared", "running")),
            )
        ]

    def __str__(self) -> str:
        return f"redrive to {self.sink_name} of {self.created_at:%Y-%m-%d %H:%M:%S}"

    @property
    def origin(self) -> str:
        """The log id of the redrive's batches."""
        return f"redrive-{self.id.hex}"

    @property
    def finished(self) -> int:
        """Letters whose redrive has ended, either way."""
        return self.stored + self.already_stored + self.refused

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN


class DeadLetter(models.Model):
    """One record that one sink refused.

    `payload` is the record's as it was sent and never changes; an edit puts `edited_payload`
    beside it, and the fields that are read from a payload follow the edit.  `exact` holds the
    whole record as it was sent, as MessagePack, where columns of text cannot (a NUL, more than
    their length) and once it has been edited.  `pattern` is the error without what differs from
    letter to letter.
    """

    id = models.BigAutoField(primary_key=True)
    sink = models.CharField(max_length=64)
    sink_name = models.CharField(max_length=NAME_LENGTH)
    record_id = models.BigIntegerField()
    type = models.CharField(max_length=NAME_LENGTH)
    tenant = models.CharField(max_length=NAME_LENGTH)
    service = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    message = models.TextField(blank=True, default="")
    payload = models.TextField()
    exact = models.BinaryField(null=True)
    timestamp = models.DateTimeField()
    received_at = models.DateTimeField()
    severity = models.SmallIntegerField()
    request_id = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    traceparent = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    trace_id = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    span_id = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    nbytes = models.IntegerField()

    reason = models.CharField(max_length=32)
    error = models.TextField(blank=True, default="")
    pattern = models.CharField(max_length=PATTERN_LENGTH, blank=True, default="")
    attempts = models.IntegerField(default=0)
    first_tried_at = models.DateTimeField()
    last_tried_at = models.DateTimeField()
    batch_id = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    # The batch of the redrive it last came back from.
    origin = models.CharField(max_length=NAME_LENGTH, blank=True, default="")

    state = models.CharField(max_length=10, default=WAITING, choices=[(s, s) for s in STATES])
    entered_at = models.DateTimeField()
    changed_at = models.DateTimeField()
    edited_payload = models.TextField(blank=True, default="")
    edited_at = models.DateTimeField(null=True)
    edited_by = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    redrives = models.IntegerField(default=0)
    task = models.ForeignKey(
        RedriveTask, null=True, on_delete=models.SET_NULL, related_name="letters", db_index=False
    )
    chunk = models.BigIntegerField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "dead letter"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["sink", "record_id"], name="sinks_deadletter_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["state", "id"], name="sinks_deadletter_state"),
            models.Index(fields=["sink", "state", "id"], name="sinks_deadletter_sink"),
            models.Index(
                fields=["state", "sink", "reason", "pattern"], name="sinks_deadletter_group"
            ),
            models.Index(fields=["state", "changed_at"], name="sinks_deadletter_age"),
            models.Index(
                fields=["task", "chunk"],
                name="sinks_deadletter_task",
                condition=models.Q(task__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"record {self.record_id} of {self.sink_name}"

    @property
    def current_payload(self) -> str:
        """What a redrive sends: the edit, or else what was sent."""
        return self.edited_payload or self.payload


class DeadLetterTally(models.Model):
    """A sink's letters by state, those that are forgotten included.

    `entered` is the sum of the others, always: both are counted where a letter changes its state.
    """

    sink = models.CharField(max_length=64, primary_key=True)
    sink_name = models.CharField(max_length=NAME_LENGTH)
    entered = models.BigIntegerField(default=0)
    waiting = models.BigIntegerField(default=0)
    redriving = models.BigIntegerField(default=0)
    redriven = models.BigIntegerField(default=0)
    discarded = models.BigIntegerField(default=0)
    expired = models.BigIntegerField(default=0)
    # Letters whose rows have been deleted, by the state they ended in.
    forgotten = models.JSONField(default=dict)

    class Meta:
        ordering: ClassVar[list[str]] = ["sink_name"]
        verbose_name_plural = "dead letter tallies"

    def __str__(self) -> str:
        return self.sink_name

    @property
    def imbalance(self) -> int:
        """What the tally differs by; anything but 0 is a defect."""
        return int(self.entered) - sum(int(getattr(self, state)) for state in STATES)


class DeadLetterAction(models.Model):
    """Who did what with which letters, and why.  Never changed and never deleted."""

    KINDS = ("redrive", "discard", "edit", "restore", "cancel", "resume", "expire")

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    who = models.CharField(max_length=NAME_LENGTH)
    kind = models.CharField(max_length=10, choices=[(k, k) for k in KINDS])
    sink = models.CharField(max_length=64, blank=True, default="")
    sink_name = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    selection = models.JSONField(default=dict)
    count = models.BigIntegerField(null=True)
    reason = models.CharField(max_length=1000, blank=True, default="")
    task = models.ForeignKey(
        RedriveTask, null=True, on_delete=models.SET_NULL, related_name="actions"
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "dead letter action"

    def __str__(self) -> str:
        return f"{self.kind} by {self.who}"
