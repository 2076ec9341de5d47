"""The webhook against a real server: signature, template, each answer, each way to fail."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from control.outbound.signing import signature
from control.outbox.senders import DoubtfulError
from healthmon.notify.channels.webhook import KIND
from pipeline.errors import PermanentError, RetryableError
from sinks.options import OptionsError, decode_options
from tests.healthmon.notify.deliveries import HOSTILE, NOW_S, delivery, event, told
from tests.healthmon.notify.webserver import CLOSE, DRIP, HANG, answer


def send(web, notification=None, *, deadline_s=10.0, **options):
    return KIND.send(
        delivery(KIND, {"url": web.url, **options}, notification, deadline_s=deadline_s)
    )


def test_it_posts_the_whole_notification(web):
    assert send(web, link_base="https://c.example/") == "200 thanks"
    posted = web.posted[0]
    assert posted.line == "POST /hook?key=s3cret HTTP/1.1"
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["x-collector-delivery"] == "7:1:i3:down"
    body = json.loads(posted.body)
    assert body["title"] == "DOWN: api"
    assert body["delivery"] == "7:1:i3:down"
    assert body["url"] == "https://c.example/admin/healthmon/incident/3/change/"
    assert body["events"][0]["reason"] == "connection refused"
    assert "x-collector-signature" not in posted.headers


def test_several_link_to_all_that_is_open(web):
    many = told(event("a"), event("b"), path="/admin/healthmon/incident/?state=open")
    send(web, many, link_base="https://c.example")
    body = json.loads(web.posted[0].body)
    assert body["url"] == "https://c.example/admin/healthmon/incident/?state=open"
    assert f"All that is open: {body['url']}" in body["text"]


def test_the_signature_is_over_timestamp_and_body(web):
    send(web, secret="shared", authorization="Bearer t0ken", headers={"X-Team": "ops"})
    posted = web.posted[0]
    stamp = posted.headers["x-collector-timestamp"]
    assert stamp == str(NOW_S)
    wanted = hmac.new(b"shared", stamp.encode() + b"." + posted.body, hashlib.sha256).hexdigest()
    assert posted.headers["x-collector-signature"] == wanted
    assert posted.headers["authorization"] == "Bearer t0ken"
    assert posted.headers["x-team"] == "ops"
    assert signature("shared", timestamp=NOW_S, body=posted.body + b"x") != wanted
    assert signature("shared", timestamp=NOW_S + 1, body=posted.body) != wanted


def test_a_template_is_filled_in(web):
    send(
        web,
        body={
            "text": "$target is ${status}: $reason ($$5, ${count})",
            "n": "$count",
            "all": "${targets}",
            "incident": "$incident_id",
            "fixed": [1, True, None, {"deep": "${severity}!"}],
            "$target": "names are not filled in",
        },
    )
    assert json.loads(web.posted[0].body) == {
        "text": "api is down: connection refused ($5, 1)",
        "n": 1,
        "all": ["api"],
        "incident": 3,
        "fixed": [1, True, None, {"deep": "critical!"}],
        "$target": "names are not filled in",
    }


def test_a_hostile_name_stays_a_text(web):
    send(
        web,
        told(event(HOSTILE, reason='","admin":true,"x":"')),
        body={"name": "$target", "line": "<< $target >> $reason"},
    )
    body = json.loads(web.posted[0].body)
    assert set(body) == {"name", "line"}
    assert body["name"] == HOSTILE
    assert body["line"] == f'<< {HOSTILE} >> ","admin":true,"x":"'


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_answers_that_may_be_other_later(web, status):
    web.will(answer(status, "come back", Retry_After="17"))
    with pytest.raises(RetryableError, match=f"answered {status} come back") as raised:
        send(web)
    assert raised.value.retry_after_s == 17


def test_a_retry_after_as_a_date(web):
    web.will(answer(429, "", Retry_After="Mon, 21 Sep 2026 14:14:20 GMT"))
    with pytest.raises(RetryableError) as raised:
        send(web)
    assert raised.value.retry_after_s == 60


@pytest.mark.parametrize("text", ["soon", "-5", "", "1e9", "9" * 400])
def test_a_retry_after_that_is_none(web, text):
    web.will(answer(503, "", Retry_After=text))
    with pytest.raises(RetryableError) as raised:
        send(web)
    assert raised.value.retry_after_s is None


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_answers_that_stay(web, status):
    web.will(answer(status, "no\x00\x1b such <hook>" + "y" * 5000))
    with pytest.raises(PermanentError, match=f"answered {status} no") as raised:
        send(web)
    assert len(str(raised.value)) < 400
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 410])
def test_answers_that_are_doubted(web, status):
    web.will(answer(status, "nobody here", Retry_After="9"))
    with pytest.raises(DoubtfulError, match=f"answered {status} nobody here") as raised:
        send(web)
    assert raised.value.retry_after_s == 9


def test_a_redirect_is_not_followed(web):
    web.will(answer(302, "", Location=f"http://127.0.0.1:{web.port}/other"))
    with pytest.raises(DoubtfulError, match="redirect to http://127"):
        send(web)
    assert len(web.posted) == 1


def test_a_server_that_hangs_up(web):
    web.will(CLOSE)
    with pytest.raises(RetryableError, match="connection failed"):
        send(web)


@pytest.mark.parametrize("how", [HANG, DRIP])
def test_a_server_that_hangs_or_drips_is_left_at_the_deadline(web, how):
    web.will(how)
    with pytest.raises(RetryableError, match=r"in time|within"):
        send(web, deadline_s=0.5)


@pytest.mark.parametrize(
    "said", [b"garbage\r\n\r\n", b"HTTP/1.1 two-hundred OK\r\n\r\n", b"\x00" * 100]
)
def test_a_server_that_talks_garbage(web, said):
    web.will(said)
    with pytest.raises(RetryableError, match="connection failed"):
        send(web)


def test_an_endless_body_is_not_read(web):
    web.will(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 5_000_000)
    assert len(send(web)) < 400


def test_nobody_listens(web):
    web.stop()
    with pytest.raises(RetryableError, match=r"cannot connect to 127\.0\.0\.1"):
        send(web)


def test_a_name_that_does_not_resolve():
    made = delivery(KIND, {"url": "http://nowhere.invalid/"})
    with pytest.raises(RetryableError, match=r"nowhere\.invalid cannot be resolved"):
        KIND.send(made)


def test_the_address_connected_to_is_judged(web):
    options = {"url": f"http://localhost:{web.port}/"}
    with pytest.raises(PermanentError, match="loopback address"):
        KIND.send(delivery(KIND, options, loopback_bound=False))
    assert web.posted == []
    for url in ("http://169.254.169.254/latest/", "http://[fe80::1]/", "http://0.0.0.0:1/"):
        with pytest.raises(PermanentError, match="may not be connected to"):
            KIND.send(delivery(KIND, {"url": url}))


def test_a_certificate_is_checked_unless_told_otherwise(secure_web):
    with pytest.raises(RetryableError, match=r"certificate|CERTIFICATE"):
        send(secure_web)
    assert send(secure_web, verify_tls=False) == "200 thanks"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "ftp://x/"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://a b/"}, "url"),
        ({"url": "http://a\r\nX: y/"}, "url"),
        ({"url": "http://x:99999/"}, "url"),
        ({"url": "http://x/", "headers": {"Host": "y"}}, "headers"),
        ({"url": "http://x/", "headers": {"X-A": "a\r\nX-B: b"}}, "headers"),
        ({"url": "http://x/", "headers": {"X-Collector-Signature": "a"}}, "headers"),
        ({"url": "http://x/", "authorization": "a\nb"}, "authorization"),
        ({"url": "http://x/", "body": {"a": "$unknown"}}, "body"),
        ({"url": "http://x/", "body": {"a": "costs $"}}, "body"),
        ({"url": "http://x/", "body": ["${}"]}, "body"),
        ({"url": "http://x/", "body": "x" * 20_000}, "body"),
        ({"url": "http://x/", "body": [0] * 600}, "body"),
        ({"url": "http://x/", "link_base": "javascript:alert(1)"}, "link_base"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_saved(options, named):
    with pytest.raises(OptionsError, match=named):
        decode_options(KIND.Options, options)


def test_a_template_nested_too_deep_is_refused():
    body: object = "x"
    for _ in range(10):
        body = [body]
    with pytest.raises(OptionsError, match="nested"):
        decode_options(KIND.Options, {"url": "http://x/", "body": body})


def test_a_template_that_makes_too_much_fails_for_ever(web):
    many = told(*[event("n" * 200, notes="x" * 2000) for _ in range(50)])
    with pytest.raises(PermanentError, match="longer than"):
        send(web, many, body=["${events}"] * 20)


def test_secrets_are_in_no_repr(web):
    made = delivery(KIND, {"url": web.url, "secret": "shared", "authorization": "Bearer t0ken"})
    for secret in ("s3cret", "shared", "t0ken"):
        assert secret not in repr(made)
