"""Each built-in kind, and one of a third party, against the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from django.conf import settings

from healthmon.probes.registry import kind_of
from tests.healthmon.probes import stand
from tests.healthmon.probes.contract import Case, ProbeContract, TcpFaults
from tests.healthmon.probes.icmpsupport import can_ping
from tests.healthmon.probes.listeners.authority import authority
from tests.healthmon.probes.listeners.nameserver import Nameserver
from tests.healthmon.probes.listeners.tcp import Listener, answers, silent


class TestTcp(TcpFaults):
    kind = "tcp"
    options: ClassVar[dict[str, Any]] = {"send": "PING\\r\\n", "expect": "PONG"}
    bad_options = ({"send": "x" * 5000}, {"expect": 7}, {"tls": "yes"})
    bad_addresses = (
        "",
        "host",
        "host:0",
        "host:70000",
        "host:ssh",
        "::1",
        "[::1",
        "a/b:1",
        "127.1:80",
    )

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Listener(answers(b"+PONG\r\n", after=b"PING\r\n")) as listener:
            yield Case(address=listener.where, options=self.options)


class TestTcpOverTls(TestTcp):
    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Listener(answers(b"+PONG\r\n", after=b"PING\r\n"), tls=certified()) as listener:
            tls = {"tls": True, "ca_file": authority().ca_file}
            yield Case(address=listener.where, options=self.options | tls)


class TestTls(TcpFaults):
    kind = "tls"
    bad_options = (
        {"cert_days_degraded": -1},
        {"cert_days_failed": 4000},
        {"cert_days_failed": 30, "cert_days_degraded": 3},
    )
    bad_addresses = ("", "host:0", "https://host", "a b")

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Listener(silent, tls=certified()) as listener:
            yield Case(address=listener.where, options={"ca_file": authority().ca_file})


class TestDns(ProbeContract):
    kind = "dns"
    judged_by_policy = False  # of its servers only: see test_dns
    bad_options = (
        {"record_type": "ANY"},
        {"server": "a b"},
        {"expect": ["192.0.2.1"]},
        {"match": "equals"},
        {"nxdomain": True, "match": "contains", "expect": ["x"]},
    )
    bad_addresses = ("", "a b", "-x.example", "x" * 300)

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Nameserver() as dns:
            dns.say("www.example.org", "A", ["192.0.2.1", "192.0.2.2"])
            expected = {"match": "equals", "expect": ["192.0.2.2", "192.0.2.1"]}
            yield Case(address="www.example.org", options={"server": dns.where, **expected})

    @contextlib.contextmanager
    def stuck(self) -> Iterator[tuple[Case, Any]]:
        with Nameserver() as dns:
            dns.ignore("www.example.org", "A")
            yield Case(address="www.example.org", options={"server": dns.where}), dns.asked

    @contextlib.contextmanager
    def failing(self) -> Iterator[Case]:
        with Nameserver() as dns:
            yield Case(address="no-such.example.org", options={"server": dns.where})


@pytest.mark.skipif(not can_ping(), reason="this process may not send ICMP")
class TestIcmp(ProbeContract):
    kind = "icmp"
    bad_options = ({"count": 0}, {"count": 99}, {"max_loss_percent": 100}, {"ip_version": "5"})
    bad_addresses = ("", "a b", "host:80")

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        yield Case(address="127.0.0.1", options={"count": 3, "gap_ms": 10})

    @contextlib.contextmanager
    def stuck(self) -> Iterator[tuple[Case, Any]]:
        # The name's own answer is what it waits for.
        with Nameserver() as dns:
            dns.ignore("router.example.org", "A")
            tools = stand.tools(names=stand.resolver(dns))
            yield Case(address="router.example.org", tools=tools), dns.asked

    @contextlib.contextmanager
    def failing(self) -> Iterator[Case]:
        yield Case(address="no-such-host.example.org")


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = settings.COLLECTOR
    allowed = replace(collector.monitoring, probe_kinds=(TestThirdParty.kind,))
    monkeypatch.setattr(settings, "COLLECTOR", replace(collector, monitoring=allowed))


@pytest.mark.usefixtures("third_party")
class TestThirdParty(TcpFaults):
    kind = "tests.healthmon.probes.thirdparty.KIND"
    bad_options = ({"greeting": 7},)
    bad_addresses = ("", "host")

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Listener(answers(b"hello\n")) as listener:
            yield Case(address=listener.where)

    def test_is_found_by_its_dotted_path(self) -> None:
        assert kind_of(self.kind).label == "Greeting"


def certified() -> Any:
    return authority().server_context()
