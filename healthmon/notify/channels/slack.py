"""Slack, and what takes the same incoming webhooks (Mattermost, Rocket.Chat, Discord's /slack)."""

from __future__ import annotations

from typing import Annotated, cast

import msgspec

from control.admin.inert import one_line
from control.outbound.posting import post
from control.outbound.urls import url_problem
from healthmon.notify import wording
from healthmon.notify.kind import ChannelKind, ChannelOptions, Delivery, Event, Notification
from sinks.options import Secret

_COLOURS = {"recovered": "good", "degraded": "warning", "unknown": "warning",
            "certificate": "warning", "flapping": "warning"}  # fmt: skip
TEXT_CHARS = 30_000


class SlackOptions(ChannelOptions, frozen=True, kw_only=True):
    url: Annotated[
        Secret, msgspec.Meta(description="The incoming webhook's address; whoever has it may post.")
    ]
    room: Annotated[
        str,
        msgspec.Meta(
            description="A room (#ops) in place of the webhook's own, where that is allowed.",
            max_length=80,
        ),
    ] = ""
    username: Annotated[
        str, msgspec.Meta(description="Shown as the sender, where that is allowed.", max_length=80)
    ] = ""

    def __post_init__(self) -> None:
        wrong = url_problem(self.url.reveal())
        if wrong:
            raise ValueError(f"url: {wrong}")


def send(delivery: Delivery) -> str:
    options = cast(SlackOptions, delivery.options)
    return post(
        options.url.reveal(),
        body=msgspec.json.encode(message(delivery)),
        headers={
            "Content-Type": "application/json",
            "User-Agent": "Collector",
            "X-Collector-Delivery": delivery.key,
        },
        outbound=delivery.outbound,
        verify=True,
        now_s=delivery.now_s,
    )


def message(delivery: Delivery) -> dict[str, object]:
    """The JSON: a title that is also the notification's text, and an attachment with the lines."""
    options = cast(SlackOptions, delivery.options)
    told = delivery.notification
    lines = [text for event in told.events for text in _lines(told, event, options.link_base)]
    lines += wording.endings(told)
    all_open = wording.list_link(told, options.link_base)
    if all_open:
        lines.append(f"<{all_open}|All that is open>")
    text = "\n".join(lines)
    made: dict[str, object] = {
        "text": escaped(told.title),
        "attachments": [
            {
                "color": _colour(told.events),
                "text": text[:TEXT_CHARS],
                "fallback": escaped(told.title),
                "mrkdwn_in": ["text"],
            }
        ],
    }
    if options.room:
        made["channel"] = options.room
    if options.username:
        made["username"] = options.username
    return made


def escaped(text: str) -> str:
    """Slack's own three; so a name can neither link nor call everybody (`<!channel>`)."""
    whole = one_line(text, limit=1_000)
    return whole.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(told: Notification, event: Event, link_base: str) -> list[str]:
    text = escaped(wording.line(event))
    link = wording.linked(event.path, link_base)
    lines = [f"{text} <{link}|open>" if link else text]
    known = wording.facts(event)
    if known:
        lines.append(escaped(known))
    what_to_do = wording.notes(told, event)
    if what_to_do:
        lines += ["What to do:", *map(escaped, what_to_do)]
    return lines


def _colour(events: list[Event]) -> str:
    colours = {_COLOURS.get(event.event, "danger") for event in events}
    return next((one for one in ("danger", "warning", "good") if one in colours), "good")


KIND = ChannelKind(
    name="slack",
    label="Slack",
    description="An incoming webhook of Slack, or of what takes the same messages.",
    Options=SlackOptions,
    send=send,
)
