"""Slack's incoming webhooks against a recording server."""

from __future__ import annotations

import json

import pytest

from healthmon.notify.channels.slack import KIND
from pipeline.errors import PermanentError, RetryableError
from tests.healthmon.notify.deliveries import HOSTILE, delivery, event, told
from tests.healthmon.notify.webserver import answer


def send(web, notification=None, **options):
    return KIND.send(delivery(KIND, {"url": web.url, **options}, notification))


def test_a_message_arrives(web):
    send(web, link_base="https://c.example", room="#ops", username="watch")
    body = json.loads(web.posted[0].body)
    assert body["text"] == "DOWN: api"
    assert body["channel"] == "#ops"
    assert body["username"] == "watch"
    attachment = body["attachments"][0]
    assert attachment["color"] == "danger"
    assert "<https://c.example/admin/healthmon/incident/3/change/|open>" in attachment["text"]


def test_a_hostile_name_links_and_calls_nobody(web):
    send(web, told(event(HOSTILE), title=f"DOWN: {HOSTILE}"))
    body = json.loads(web.posted[0].body)
    for text in (body["text"], body["attachments"][0]["text"]):
        assert "<" not in text
        assert "&lt;!channel&gt;" in text


@pytest.mark.parametrize(
    ("names", "colour"),
    [
        (["recovered"], "good"),
        (["recovered", "degraded"], "warning"),
        (["degraded", "down"], "danger"),
    ],
)
def test_the_gravest_gives_the_colour(web, names, colour):
    send(web, told(*[event(event=name) for name in names]))
    assert json.loads(web.posted[0].body)["attachments"][0]["color"] == colour


def test_its_refusals(web):
    web.will(answer(429, "rate_limited", Retry_After="30"), answer(404, "no_service"))
    with pytest.raises(RetryableError) as raised:
        send(web)
    assert raised.value.retry_after_s == 30
    with pytest.raises(PermanentError, match="no_service"):
        send(web)
