"""E-mail against a real SMTP listener: security, login, headers, refusals."""

from __future__ import annotations

import socket
import threading

import pytest

from healthmon.notify.channels.email import KIND, message_of
from pipeline.errors import PermanentError, RetryableError
from sinks.options import OptionsError, decode_options
from tests.healthmon.notify.deliveries import HOSTILE, delivery, event, told
from tests.healthmon.notify.smtpserver import PASSWORD, USER


def options(port: int, **more):
    return {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "collector@example.org",
        "recipients": ["ops@example.org", "boss@example.org"],
        **more,
    }


def send(listener, notification=None, *, key="7:1:i3:down", **more):
    return KIND.send(delivery(KIND, options(listener.port, **more), notification, key=key))


def test_a_mail_arrives(smtp):
    listener = smtp()
    assert send(listener, link_base="https://c.example") == "taken for 2 recipients"
    mail = listener.handler.mails[0]
    assert mail["Subject"] == "[Collector] DOWN: api"
    assert mail["From"] == "collector@example.org"
    assert mail["To"] == "ops@example.org, boss@example.org"
    assert mail["Auto-Submitted"] == "auto-generated"
    plain = mail.get_body(("plain",)).get_content()
    assert "DOWN: api (connection refused) at 2026-11-22 04:00:00 UTC" in plain
    assert "https://c.example/admin/healthmon/incident/3/change/" in plain
    assert "<li>" in mail.get_body(("html",)).get_content()


def test_a_repeat_has_the_same_message_id(smtp):
    listener = smtp()
    send(listener)
    send(listener)
    send(listener, key="another")
    first, second, other = (mail["Message-ID"] for mail in listener.handler.mails)
    assert first == second != other
    assert first.endswith("@example.org>")


def test_a_hostile_name_gets_into_no_header_and_no_markup(smtp):
    listener = smtp()
    send(listener, told(event(HOSTILE, notes=HOSTILE), title=f"DOWN: {HOSTILE}"))
    mail = listener.handler.mails[0]
    assert mail["Bcc"] is None
    assert listener.handler.envelopes[0][1] == ["ops@example.org", "boss@example.org"]
    assert b"\nBcc:" not in listener.handler.raw[0].split(b"\r\n\r\n")[0]
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("title", ["x" * 3000, "ünïcode \U0001f600", "\x00\x1b[31m", ""])
def test_any_title_makes_a_mail(smtp, title):
    listener = smtp()
    send(listener, told(title=title))
    assert len(listener.handler.mails[0]["Subject"]) < 300


def test_starttls_and_a_login(smtp):
    listener = smtp(starttls=True, login=True)
    given = {"security": "starttls", "username": USER, "password": PASSWORD}
    with pytest.raises(RetryableError, match=r"certificate"):
        send(listener, **given)
    assert send(listener, **given, verify_tls=False).startswith("taken")
    with pytest.raises(PermanentError, match="535") as raised:
        send(listener, **{**given, "password": "wrong-one"}, verify_tls=False)
    assert "wrong-one" not in str(raised.value)


def test_tls_from_the_start(smtp):
    listener = smtp(tls=True)
    with pytest.raises(RetryableError, match="certificate"):
        send(listener, security="tls")
    assert send(listener, security="tls", verify_tls=False).startswith("taken")


def test_a_server_without_starttls(smtp):
    with pytest.raises(PermanentError, match="the server cannot"):
        send(smtp(), security="starttls")


def test_a_refusal_for_now_and_one_for_ever(smtp):
    listener = smtp()
    listener.handler.answer = "451 try again later"
    with pytest.raises(RetryableError, match="answered 451 try again later"):
        send(listener)
    listener.handler.answer = "554 looks like spam"
    with pytest.raises(PermanentError, match="answered 554 looks like spam"):
        send(listener)
    assert listener.handler.mails == []


def test_one_recipient_refused_is_said(smtp):
    listener = smtp()
    listener.handler.refused = {"boss@example.org": "550 unknown"}
    assert send(listener) == "taken for 1 of 2 recipients; refused: boss@example.org"
    listener.handler.refused["ops@example.org"] = "450 mailbox busy"
    with pytest.raises(RetryableError, match="450"):
        send(listener)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RetryableError, match="cannot connect"):
        KIND.send(delivery(KIND, options(port)))


def test_a_server_that_drips_is_left_at_the_deadline():
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip():
        connection, _ = server.accept()
        with connection:
            try:
                while not ended.wait(0.02):
                    connection.sendall(b"2")
            except OSError:
                pass

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        port = server.getsockname()[1]
        with pytest.raises(RetryableError):
            KIND.send(delivery(KIND, options(port), deadline_s=0.5))
    finally:
        ended.set()
        thread.join(180)
        server.close()


def test_the_address_connected_to_is_judged(smtp):
    made = delivery(KIND, options(smtp().port), loopback_bound=False)
    with pytest.raises(PermanentError, match="may not be connected to"):
        KIND.send(made)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sender": "nobody"}, "sender"),
        ({"sender": "a@b.c\r\nBcc: x@y.z"}, "sender"),
        ({"recipients": []}, "recipients"),
        ({"recipients": ["a@b.c", "a b@c"]}, "recipients"),
        ({"recipients": [f"a{n}@b.c" for n in range(51)]}, "recipients"),
        ({"username": "me", "security": "tls"}, "password"),
        ({"username": "me", "password": "x"}, "security"),
        ({"port": 0}, "port"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_saved(changed, named):
    with pytest.raises(OptionsError, match=named):
        decode_options(KIND.Options, {**options(25), **changed})


def test_it_says_where_and_what_to_do():
    named = event(address="https://x/health", notes="restart <it>\ncall Ann")
    made = message_of(delivery(KIND, options(25), told(named)))
    plain, html = made.get_body(("plain",)), made.get_body(("html",))
    assert plain is not None
    assert html is not None
    text = plain.get_content()
    assert "\n  critical, https://x/health\n" in text
    assert "  What to do:\n    restart <it>\n    call Ann\n" in text
    assert "critical, https://x/health" in html.get_content()
    assert "restart &lt;it&gt;<br>call Ann" in html.get_content()


def test_notes_of_a_few_are_shortened_and_of_many_left_out():
    for count, shown in ((5, True), (6, False)):
        many = told(*[event(f"t{n}", notes=f"runbook {n}\nmore") for n in range(count)])
        body = message_of(delivery(KIND, options(25), many)).get_body(("plain",))
        assert body is not None
        assert ("    runbook 3 more" in body.get_content()) is shown


def test_several_events_are_listed_and_the_rest_counted():
    many = told(event("one"), event("two"), title="52 down", count=52)
    made = message_of(delivery(KIND, options(25), many))
    body = made.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "DOWN: one" in text
    assert "DOWN: two" in text
    assert "and 50 more" in text
