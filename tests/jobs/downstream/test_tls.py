"""TLS: certificates are checked unless the operator said otherwise; what speaks none fails."""

from __future__ import annotations

import ssl

import pytest

from jobs.downstream import services
from jobs.downstream.calls import FailedCall
from tests.healthmon.probes.listeners.authority import Authority
from tests.jobs.downstream.stand import spec


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secured(make_toy):
    def make(context: ssl.SSLContext):
        toy = make_toy(tls=context)
        assert toy.url.startswith("https://")
        return toy

    return make


@pytest.fixture
def trusted(monkeypatch, authority) -> None:
    context = ssl.create_default_context(cafile=authority.ca_file)
    monkeypatch.setattr(services, "client_context", lambda verify: context)


@pytest.mark.usefixtures("trusted")
def test_a_good_certificate(caller, secured, authority):
    toy = secured(authority.server_context())
    for _ in range(3):
        assert caller.call(spec(toy.url)).status == 200
    assert caller.state()["failures"] == 0


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"days": -1, "begins_days": -10}, "certificate has expired"),
        ({"self_signed": True}, "self-signed"),
    ],
    ids=["expired", "self-signed"],
)
def test_one_that_is_not_trusted(caller, secured, authority, made, words):
    toy = secured(authority.server_context(**made))
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(toy.url))
    assert f"its certificate is not trusted: {words}" in str(raised.value)


@pytest.mark.usefixtures("trusted")
def test_one_for_another_host(caller, secured, authority):
    toy = secured(authority.server_context("elsewhere.example"))
    with pytest.raises(FailedCall, match="not trusted: IP address mismatch"):
        caller.call(spec(toy.url))


def test_it_is_not_checked_where_the_operator_said_so(caller, secured, authority):
    toy = secured(authority.server_context("elsewhere.example"))
    with pytest.raises(FailedCall, match="not trusted"):
        caller.call(spec(toy.url))
    assert caller.call(spec(toy.url, verify_tls=False)).status == 200


def test_one_that_speaks_no_tls(caller, toy):
    with pytest.raises(FailedCall, match="the TLS handshake failed"):
        caller.call(spec(toy.url.replace("http:", "https:"), verify_tls=False))


@pytest.mark.usefixtures("trusted")
def test_a_redirect_does_not_leave_tls(caller, secured, authority, toy):
    service = spec(secured(authority.server_context()).url, follow_redirects=True)
    with pytest.raises(Exception, match="leaves TLS"):
        caller.call(service, f"/faults/redirect?to={toy.url}/")


@pytest.mark.usefixtures("trusted")
def test_deadlines_hold_over_tls(caller, secured, authority):
    toy = secured(authority.server_context())
    for path in ("/faults/hang", "/faults/drip"):
        with pytest.raises(FailedCall, match=r"within 0\.3 s"):
            caller.call(spec(toy.url, timeout_s=0.3), path)
