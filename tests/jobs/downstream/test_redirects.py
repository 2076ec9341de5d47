"""Redirects: off unless the operator turned them on, and each hop judged as any address is."""

from __future__ import annotations

import pytest

from control.outbound.policy import AddressPolicy, Words
from jobs.downstream.calls import FailedCall, RefusedCall
from sinks.secrets import encrypt
from tests.jobs.downstream.stand import spec

CALLED = Words(done="called", allow="COLLECTOR_JOBS_ALLOW", deny="COLLECTOR_JOBS_DENY")


def to(where: str, code: int = 302) -> str:
    return f"/faults/redirect?code={code}&to={where.replace('&', '%26')}"


def paths(toy) -> list[str]:
    return [line["path"] for line in toy.journal.lines(limit=100)]


def test_they_are_not_followed_unless_that_was_turned_on(caller, toy):
    with pytest.raises(RefusedCall) as raised:
        caller.call(spec(toy.url), to("/elsewhere"))
    assert raised.value.status == 302
    assert "a redirect to /elsewhere" in str(raised.value)
    assert len(paths(toy)) == 1


@pytest.mark.parametrize(
    ("code", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "GET"),
        (303, "DELETE", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
def test_one_that_is_followed_keeps_the_method_as_browsers_do(caller, toy, code, method, then):
    service = spec(toy.url, follow_redirects=True)
    answer = caller.call(service, to("/new", code), method=method, body=b'{"a": 1}')
    assert answer.status == 200
    assert paths(toy)[-1] == "/new"
    if then != "HEAD":
        assert answer.body["got"] == (None if then == "GET" else {"a": 1})


@pytest.mark.parametrize("loopback_bound", [False, True])
def test_a_private_address_is_not_gone_to(make_caller, make_toy, loopback_bound):
    """The base URL's own host may be private: the operator wrote it.  What it points to may not,
    whatever the server is bound to: the service wrote that."""
    caller = make_caller(policy=AddressPolicy(loopback_bound=loopback_bound, words=CALLED))
    toy, inner = make_toy(), make_toy()
    with pytest.raises(RefusedCall) as raised:
        caller.call(spec(toy.url, follow_redirects=True), to(inner.url + "/admin"))
    text = str(raised.value)
    assert text == (
        f"toy redirects to {inner.url}/admin: 127.0.0.1 is a loopback address, which is called"
        " only where COLLECTOR_JOBS_ALLOW names its network"
    )
    assert raised.value.status == 302
    assert paths(inner) == []
    assert caller.state()["failures"] == 0


def test_a_network_that_the_operator_named_is_gone_to(make_caller, make_toy):
    caller = make_caller(policy=AddressPolicy(loopback_bound=False, allow=["127.0.0.1/32"]))
    toy, inner = make_toy(), make_toy()
    service = spec(toy.url, follow_redirects=True)
    assert caller.call(service, to(inner.url + "/admin")).status == 200
    assert paths(inner) == ["/admin"]


@pytest.mark.parametrize(
    "where",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://2130706433/",
        "http://localhost/",
    ],
)
def test_special_addresses_are_not_gone_to_however_they_are_written(caller, toy, where):
    with pytest.raises((RefusedCall, FailedCall)) as raised:
        caller.call(spec(toy.url, follow_redirects=True), to(where))
    assert "connected to" in str(raised.value) or "cannot be resolved" in str(raised.value)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("ftp://elsewhere/x", "not a web address"),
        ("file:///etc/passwd", "not a web address"),
        ("javascript:alert(1)", "not a web address"),
        ("http://user:pw@127.0.0.1/", "has a user in it"),
        ("http://[::bad/", "not a URL"),
        ("http://a:99999/", "not a URL"),
    ],
)
def test_where_none_can_lead(caller, toy, where, why):
    with pytest.raises(RefusedCall, match=why):
        caller.call(spec(toy.url, follow_redirects=True), to(where))


def test_a_circle_ends(caller, toy):
    with pytest.raises(RefusedCall, match="more than 5 redirects"):
        caller.call(spec(toy.url, follow_redirects=True), "/faults/circle")
    assert len(paths(toy)) == 6


def test_secrets_and_what_may_be_one_stay_with_the_service(make_caller, make_toy):
    caller = make_caller(policy=AddressPolicy(allow=["127.0.0.0/8"]))
    toy, other = make_toy(), make_toy()
    service = spec(
        toy.url,
        follow_redirects=True,
        headers={"Authorization": "Basic abc", "Cookie": "a=b", "X-Team": "ops"},
        secret_headers={"X-Key": encrypt("k3y")},
    )
    sent = caller.call(service, to(other.url + "/echo", 307), headers={"X-Step": "1"}).body
    assert not {"Authorization", "Cookie", "X-Key"} & sent.keys()
    assert (sent["X-Team"], sent["X-Step"]) == ("ops", "1")
    assert sent["Host"] == other.url.removeprefix("http://")
    sent = caller.call(service, to("/echo", 307)).body
    assert sent["Authorization"] == "Basic abc"
    assert sent["X-Key"] == "k3y"


def test_all_hops_share_one_deadline(caller, toy):
    with pytest.raises(FailedCall, match=r"within 0\.3 s"):
        caller.call(spec(toy.url, follow_redirects=True, timeout_s=0.3), to("/faults/drip", 307))


def test_an_expected_redirect_is_an_answer(caller, toy):
    service = spec(toy.url, follow_redirects=True, expected_status="200-299,302")
    assert caller.call(service, to("/elsewhere")).status == 302
    assert len(paths(toy)) == 1
