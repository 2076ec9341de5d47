"""Who sends: senders by name, as apps register them, and what they are told and answer.

Filled at `ready()` and read by the deliverer's threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from control.ports.registry import Registry
from pipeline.errors import RetryableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message as its sender gets it.  `attempt` counts from 1."""

    dedupe_key: str
    channel: str
    subject: str
    payload: dict[str, Any]
    attempt: int
    created_at: datetime


class DoubtfulError(RetryableError):
    """What sounds final, but is also said for a while by a receiver that is being replaced.

    It is retried as any other, but fails when the same is heard for `PATIENCE_S` on end.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a channel may be used now.  Not `enabled`: its messages wait."""

    enabled: bool = True
    rate_per_minute: float = 60.0


class Sender(Protocol):
    """Sends the messages of one app.  Called from many threads, for one channel by one at a time.

    `deadline_s` is the most that `send` takes, whatever the other end does.
    """

    deadline_s: float

    def terms(self, channel: str) -> Terms | None:
        """None when there is no such channel any more: its messages fail."""
        ...

    def send(self, message: Outgoing) -> str:
        """Send it, and answer what the other end said, without secrets.

        Raises RetryableError (with the other end's own word on when, if it gave one),
        DoubtfulError or PermanentError; anything else that it raises is retried.
        """
        ...

    def settled(self, message: Outgoing, sent: bool) -> None:
        """Called inside the transaction that marks a message as sent or failed."""
        ...


_senders: Registry[Sender] = Registry(what="sender of messages")


def register_sender(name: str, sender: Sender) -> None:
    """Have this sender send the messages that name it; the same name again replaces it."""
    _senders.register(name, sender)


def unregister_sender(name: str) -> None:
    _senders.unregister(name)


def sender_named(name: str) -> Sender | None:
    return _senders.get(name)
