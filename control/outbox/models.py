"""Messages that wait to be sent, and every attempt to send them, in the control database.

    waiting --claimed--> sending --answered--> sent
       ^                    |
       +--- to be retried --+--- refused, too old ---> failed
                            |
                            +--- its process fell silent (lease over) ---> claimed again

`cancelled` is an operator's word.  Each move is one conditional UPDATE.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models

WAITING, SENDING, SENT, FAILED, CANCELLED = "waiting", "sending", "sent", "failed", "cancelled"
OPEN = (WAITING, SENDING)
STATES = (WAITING, SENDING, SENT, FAILED, CANCELLED)

ERROR_CHARS = 1000


class OutboxMessage(models.Model):
    """One message to one channel.  `dedupe_key` goes with it, so that a repeat is recognised.

    `sender` names who knows how to send it, `channel` is that sender's name for where to: messages
    of one channel are sent one after another.
    """

    dedupe_key = models.CharField(max_length=200, unique=True)
    sender = models.CharField(max_length=63)
    channel = models.CharField(max_length=100)
    channel_name = models.CharField("channel", max_length=200, blank=True, default="")
    subject = models.CharField(max_length=300, blank=True, default="")
    payload = models.JSONField(default=dict)
    state = models.CharField(
        max_length=10, choices=[(state, state) for state in STATES], default=WAITING
    )
    attempts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    next_at = models.DateTimeField(help_text="When it is tried next.")
    expires_at = models.DateTimeField(help_text="Given up when it could not be sent until then.")
    doubted_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when each answer sounds final."
    )
    owner = models.CharField(max_length=100, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=ERROR_CHARS, blank=True, default="")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "message"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_at"],
                name="control_outbox_open",
                condition=models.Q(state__in=("waiting", "sending")),
            ),
            models.Index(fields=["state", "finished_at"], name="control_outbox_finished"),
            models.Index(fields=["sender", "channel", "state"], name="control_outbox_channel"),
        ]

    def __str__(self) -> str:
        return self.subject or self.dedupe_key

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


class OutboxAttempt(models.Model):
    """One attempt to send a message, and what came of it."""

    SENT, RETRY, FAILED, SILENT = "sent", "retry", "failed", "silent"

    message = models.ForeignKey(OutboxMessage, on_delete=models.CASCADE, related_name="attempt_log")
    number = models.PositiveIntegerField()
    at = models.DateTimeField()
    took_ms = models.FloatField(default=0)
    outcome = models.CharField(
        max_length=10,
        choices=[(word, word) for word in (SENT, RETRY, FAILED, SILENT)],
    )
    text = models.CharField(max_length=ERROR_CHARS, blank=True, default="")
    process = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["number", "id"]
        verbose_name = "attempt"

    def __str__(self) -> str:
        return f"{self.number}: {self.outcome}"
