"""What is sent, and what each answer means, against a real service."""

from __future__ import annotations

import pytest

from jobs.downstream.calls import Delayed, FailedCall, RefusedCall
from jobs.execution.interruption import CANCEL, DEADLINE, Interrupted
from pipeline.runtime.clock import FakeClock
from sinks.secrets import encrypt
from tests.jobs.downstream.stand import spec


def test_a_call_brings_the_answer_as_json(caller, toy):
    answer = caller.call(spec(toy.url + "/api/"), "/users/7?full=yes", body=b'{"a": [1, null]}')
    assert answer.status == 200
    assert answer.body["path"] == "/api/users/7?full=yes"
    assert answer.body["got"] == {"a": [1, None]}
    assert answer.duration_s >= 0


def test_headers_are_those_of_the_service_then_the_steps_and_its_secrets_last(caller, toy):
    service = spec(
        toy.url,
        headers={"X-Team": "ops", "X-Kind": "service"},
        secret_headers={"Authorization": encrypt("abc")},
    )
    sent = caller.call(
        service,
        "/echo",
        headers={"x-kind": "step", "Idempotency-Key": "j:s", "authorization": "stolen"},
    ).body
    assert sent["X-Team"] == "ops"
    assert sent["x-kind"] == "step"
    assert "X-Kind" not in sent
    assert sent["Idempotency-Key"] == "j:s"
    assert sent["Authorization"] == "abc"
    assert "authorization" not in sent
    assert sent["Content-Type"] == "application/json"
    assert sent["User-Agent"] == "Collector"
    assert sent["Accept-Encoding"] == "identity"
    assert sent["Host"] == toy.url.removeprefix("http://")


def test_text_beyond_ascii_is_sent_as_utf8(caller, toy):
    sent = caller.call(spec(toy.url), "/echo", headers={"X-Name": "Zoë"}).body
    assert sent["X-Name"].encode("latin-1").decode() == "Zoë"


def test_without_a_body_none_is_announced(caller, toy):
    sent = caller.call(spec(toy.url), "/echo", method="GET", body=None).body
    assert "Content-Type" not in sent
    assert "Content-Length" not in sent


def test_an_answer_without_a_body_is_none(caller, toy):
    assert caller.call(spec(toy.url), "/faults/status?code=204").body is None
    assert caller.call(spec(toy.url), "/x", method="HEAD", body=None).body is None


def test_what_is_not_json_is_text(caller, toy):
    assert caller.call(spec(toy.url), "/faults/status?code=200&text=<b>hi</b>").body == "<b>hi</b>"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_work_later_is_a_failed_call(caller, toy, status):
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(toy.url), f"/faults/status?code={status}&text=busy")
    assert raised.value.status == status
    assert str(raised.value) == f"toy answered {status}: busy"
    assert raised.value.retry_after_s is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 451])
def test_what_never_will_is_refused(caller, toy, status):
    with pytest.raises(RefusedCall) as raised:
        caller.call(spec(toy.url), f"/faults/status?code={status}&text=no%20such%20user")
    assert raised.value.status == status
    assert str(raised.value) == f"toy answered {status}: no such user"


def test_which_statuses_are_expected_is_the_steps_word_and_else_the_services(caller, toy):
    service = spec(toy.url, expected_status="200,404")
    assert caller.call(service, "/faults/status?code=404&text=none").body == "none"
    with pytest.raises(RefusedCall, match="answered 404"):
        caller.call(service, "/faults/status?code=404", expected_status="200-299")
    with pytest.raises(RefusedCall, match="answered 201"):
        caller.call(service, "/faults/status?code=201")
    assert caller.call(service, "/faults/status?code=503", expected_status="503").status == 503


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7.0), ("0", 0.0), ("99999999", 3600.0), ("soon", None), ("-1", None), ("", None)],
)
def test_a_retry_after_is_heard_and_bounded(caller, toy, said, seconds):
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(toy.url), f"/faults/status?code=429&retry_after={said}")
    assert raised.value.retry_after_s == seconds


def test_what_a_service_says_is_made_harmless_and_short(caller, toy):
    with pytest.raises(RefusedCall) as raised:
        caller.call(spec(toy.url), "/faults/status?code=400&text=a%0d%0ab%00c" + "x" * 2000)
    text = str(raised.value)
    assert "\n" not in text
    assert "\x00" not in text
    assert len(text) < 400


# --- secrets ---------------------------------------------------------------------------------


def test_a_secret_that_is_repeated_is_hidden(caller, toy, monkeypatch):
    monkeypatch.setenv("TOY_TOKEN", "Bearer s3cr3t-t0ken")
    service = spec(toy.url, secret_headers={"X-Key": "env:TOY_TOKEN"})
    assert caller.call(service, "/echo").body["X-Key"] == "********"
    assert caller.call(service, "/faults/status?code=200&text=you+are+s3cr3t-t0ken").body == (
        "you are ********"
    )
    with pytest.raises(RefusedCall) as raised:
        caller.call(service, "/faults/status?code=403&text=bad+s3cr3t-t0ken")
    assert str(raised.value) == "toy answered 403: bad ********"
    assert "s3cr3t" not in repr(service)


def test_a_secret_that_cannot_be_had_delays_and_calls_nobody(caller, toy, monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(Delayed, match="NOT_THERE is not set") as raised:
        caller.call(spec(toy.url, secret_headers={"X-Key": "env:NOT_THERE"}))
    assert raised.value.delay_s == 60
    with pytest.raises(Delayed, match="SECRET_KEY has changed"):
        caller.call(spec(toy.url, secret_headers={"X-Key": "not encrypted"}))
    assert toy.journal.counts()["calls"] == 0


# --- what is refused before it is sent -------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_url": "ftp://x"}, "http://"),
        ({"base_url": "http://user:pw@x"}, "secret header"),
        ({"base_url": "http://x/../y"}, "leads up"),
        ({"expected_status": "2xx"}, "'2xx' is not a status"),
        ({"headers": {"Host": "elsewhere"}}, "Host cannot be set"),
        ({"headers": {"X-A": "b\r\nX-C: d"}}, "X-A has a line break"),
        ({"headers": {"X A": "b"}}, "not a header's name"),
        ({"headers": {"X-A": 1}}, "must be text"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_a_configuration_that_cannot_be_used_delays(caller, toy, changes, why):
    with pytest.raises(Delayed) as raised:
        caller.call(spec(toy.url, **changes))
    assert why in raised.value.why
    assert raised.value.delay_s == 60
    assert toy.journal.counts()["calls"] == 0


@pytest.mark.parametrize(
    "value",
    ["a\r\nX-Admin: yes", "a\nb", "a\x00b", "a\x0bb", "a\x7f", "\ud800", "x" * 9000],
    ids=["crlf", "lf", "nul", "vt", "del", "surrogate", "long"],
)
def test_a_header_from_a_payload_cannot_add_another(caller, toy, value):
    with pytest.raises(RefusedCall, match="header X-From"):
        caller.call(spec(toy.url), headers={"X-From": value})
    assert toy.journal.counts()["calls"] == 0


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host", "X:Y", "", "ä"])
def test_a_header_of_the_connections_own_is_refused(caller, toy, name):
    with pytest.raises(RefusedCall):
        caller.call(spec(toy.url), headers={name: "1"})
    assert toy.journal.counts()["calls"] == 0


@pytest.mark.parametrize(
    "path",
    ["x", "", "/a/../b", "/a/%2e%2e/b", "/a/..%2fb", "/a/%252e%252e/b", "/..;/b", "/a\\..\\b",
     "/a b", "/a#b", "/a\r\nb", "/ä", "/" + "x" * 9000, "@evil.example/", "/."],
    ids=lambda path: repr(path[:20]),
)  # fmt: skip
def test_a_path_cannot_lead_elsewhere(caller, toy, path):
    with pytest.raises(RefusedCall, match="path"):
        caller.call(spec(toy.url + "/api"), path)
    assert toy.journal.counts()["calls"] == 0


@pytest.mark.parametrize("path", ["//evil.example/x", "/@evil.example", "/:80/", "/a%2Fb?c=%0d%0a"])
def test_a_path_stays_below_the_base_url(caller, toy, path):
    assert caller.call(spec(toy.url + "/api"), path).body["path"] == "/api" + path


def test_an_unknown_method_is_refused(caller, toy):
    with pytest.raises(RefusedCall, match="no method"):
        caller.call(spec(toy.url), method="CONNECT")


# --- when ------------------------------------------------------------------------------------


def test_a_run_that_was_told_to_end_calls_nobody(caller, toy):
    interruption = caller.interruption()
    interruption.interrupt(CANCEL)
    with pytest.raises(Interrupted):
        caller.call(spec(toy.url), interruption=interruption)
    with pytest.raises(Interrupted) as raised:
        caller.call(spec(toy.url), left_s=0)
    assert raised.value.why == DEADLINE
    assert toy.journal.counts()["calls"] == 0


def test_a_retry_after_as_a_date_is_reckoned_by_the_services_own_clock(make_caller, toy):
    caller = make_caller(clock=FakeClock(start_us=0))  # its wall clock is half a century off
    wait = "Fri, 01 Jan 2100 00:00:00 GMT"
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(toy.url), f"/faults/status?code=503&retry_after={wait.replace(' ', '+')}")
    assert raised.value.retry_after_s == 3600  # bounded
