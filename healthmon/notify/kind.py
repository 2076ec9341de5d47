"""What a kind of channel is: one function in one file, with typed options; and what it is given.

A kind's file ends with `KIND = ChannelKind(...)`.  `send` is called on a thread of its own, has
`DEADLINE_S` for all that it does, and answers what the other end said, in a few words without
secrets.  It raises RetryableError when it may work later, with the other end's own word on when,
DoubtfulError when it sounds as if it never would, and PermanentError when it never will.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from control.outbound.connecting import Outbound
from sinks.options import SinkOptions

DEADLINE_S = 30.0
# So many events are named in a message; the rest are counted.
MAX_EVENTS = 50


class ChannelOptions(SinkOptions, frozen=True, kw_only=True):
    """Base of the kinds' options: msgspec structs, each field with a description and limits."""

    link_base: Annotated[
        str,
        msgspec.Meta(
            description="Where people reach this installation, such as"
            " https://collector.example.org; for links in messages. Empty: no links.",
            pattern=r"^(https?://[^\s<>\"']{1,200})?$",
        ),
    ] = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to one target.  `at` is when, in RFC 3339."""

    key: str
    event: str
    target: str
    target_id: int
    address: str = ""
    status: str = ""
    previous: str = ""
    severity: str = ""
    reason: str = ""
    at: str = ""
    duration_s: float | None = None
    incident_id: int | None = None
    group: str = ""
    tags: list[str] = []
    notes: str = ""
    path: str = ""  # of its page in the admin


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel is told: the events by name, at most MAX_EVENTS, and how many in all."""

    title: str
    events: list[Event] = []
    count: int = 1
    counts: dict[str, int] = {}
    rule: str = ""
    path: str = ""  # in the admin: of the one event, or the list of what is open
    summary_of_quiet_hours: bool = False
    test: bool = False

    @property
    def more(self) -> int:
        """Events that are not named."""
        return max(0, self.count - len(self.events))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One sending of a notification.  `key` is the same each time that it is repeated."""

    key: str
    notification: Notification
    channel: str
    options: Any  # the kind's own Options, secrets in plain
    outbound: Outbound
    now_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelKind:
    name: str
    label: str
    description: str
    Options: type[ChannelOptions]
    send: Callable[[Delivery], str]
