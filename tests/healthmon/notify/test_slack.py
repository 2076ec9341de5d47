"""Slack's incoming webhooks against a recording server."""

from __future__ import annotations

import json

import pytest

from control.outbox.senders import DoubtfulError
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
    web.will(
        answer(429, "rate_limited", Retry_After="30"), answer(404, "no_service"), answer(400, "bad")
    )
    with pytest.raises(RetryableError) as raised:
        send(web)
    assert raised.value.retry_after_s == 30
    with pytest.raises(DoubtfulError, match="no_service"):
        send(web)
    with pytest.raises(PermanentError, match="bad"):
        send(web)


def test_it_says_where_and_what_to_do(web):
    named = event(address="https://x/?a=1&b", notes="restart <it>\ncall Ann")
    send(web, told(named), link_base="https://c.example")
    text = json.loads(web.posted[0].body)["attachments"][0]["text"]
    assert text.splitlines()[1:] == [
        "critical, https://x/?a=1&amp;b",
        "What to do:",
        "restart &lt;it&gt;",
        "call Ann",
    ]


def test_several_link_to_all_that_is_open(web):
    many = told(event("a"), event("b"), path="/admin/healthmon/incident/?state=open")
    send(web, many, link_base="https://c.example")
    text = json.loads(web.posted[0].body)["attachments"][0]["text"]
    assert "<https://c.example/admin/healthmon/incident/?state=open|All that is open>" in text
