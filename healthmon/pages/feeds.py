"""A board as JSON and as RSS.  Pure functions."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from django.utils.feedgenerator import Rss201rev2Feed

from healthmon.pages.board import Board, Outage

# What XML 1.0 has no place for.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_encode = msgspec.json.Encoder().encode


def as_json(board: Board) -> bytes:
    document: dict[str, Any] = {
        "slug": board.slug,
        "title": board.title,
        "description": board.description,
        "as_of": board.as_of,
        "status": board.status,
        "summary": board.summary,
        "groups": [
            {
                "name": group.name,
                "targets": [
                    {
                        "name": line.name,
                        "status": line.status,
                        "since": line.since,
                        **(
                            {"uptime_90d": line.uptime, "known_s": line.known_s}
                            if board.show_uptime
                            else {}
                        ),
                        **({"p95_ms": line.p95_ms} if board.show_latency else {}),
                        **(
                            {
                                "days": [
                                    {"date": day.date, "status": day.status, "uptime": day.ratio}
                                    for day in line.days
                                ]
                            }
                            if board.show_ribbon
                            else {}
                        ),
                    }
                    for line in group.lines
                ],
            }
            for group in board.groups
        ],
        "incidents": [_outage(one) for one in (*board.open, *board.recent)],
        "maintenance": [
            {
                "title": one.title,
                "description": one.description,
                "start": one.start,
                "end": one.end,
                "running": one.running,
            }
            for one in board.upkeep
        ],
    }
    return _encode(document)


def _outage(one: Outage) -> dict[str, Any]:
    return {
        "id": one.id,
        "target": one.target,
        "opened_at": one.opened_at,
        "closed_at": one.closed_at,
        "updates": [{"at": update.at, "text": update.text} for update in one.updates],
    }


def as_rss(board: Board, *, page_url: str, feed_url: str) -> bytes:
    feed = Rss201rev2Feed(
        title=_xml(board.title),
        link=page_url,
        description=_xml(board.description or f"Incidents and maintenance: {board.title}"),
        feed_url=feed_url,
        language="en",
    )
    for one in (*board.open, *board.recent):
        last = one.updates[-1].at if one.updates else one.closed_at or one.opened_at
        state = "resolved" if one.closed_at else "down"
        lines = [f"{update.at:%Y-%m-%d %H:%M} UTC: {update.text}" for update in one.updates]
        feed.add_item(
            title=_xml(f"{one.target}: {state}"),
            link=f"{page_url}#incident-{one.id}",
            description=_xml("\n".join(lines)),
            # Told again when it is resolved.
            unique_id=f"{page_url}#incident-{one.id}-{state}",
            unique_id_is_permalink=False,
            pubdate=one.opened_at if state == "down" else last,
        )
    for upkeep in board.upkeep:
        began = upkeep.start or board.as_of
        feed.add_item(
            title=_xml(f"Maintenance: {upkeep.title}"),
            link=f"{page_url}#maintenance",
            description=_xml(upkeep.description),
            unique_id=f"{page_url}#maintenance-{upkeep.id}-{upkeep.end:%Y%m%d%H%M}",
            unique_id_is_permalink=False,
            pubdate=min(began, board.as_of),
        )
    text: str = feed.writeString("utf-8")
    return text.encode()


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
