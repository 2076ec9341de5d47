"""What each kind finds out, beyond the contract: TLS, DNS, TCP, ICMP."""

from __future__ import annotations

import socket

import pytest

from control.outbound.policy import AddressPolicy
from healthmon.probes import icmp
from healthmon.probes.net.policy import PROBING
from healthmon.probes.tcp import MAX_REPLY_BYTES, unescape
from tests.healthmon.probes import stand
from tests.healthmon.probes.icmpsupport import can_ping
from tests.healthmon.probes.listeners.authority import authority
from tests.healthmon.probes.listeners.nameserver import Nameserver
from tests.healthmon.probes.listeners.tcp import (
    Listener,
    answers,
    closes,
    endless,
    resets_after,
    silent,
)

pings = pytest.mark.skipif(not can_ping(), reason="this process may not send ICMP")

# TLS


def tls_probe(context, **options):
    with Listener(silent, tls=context) as listener:
        return stand.probe(
            "tls", f"localhost:{listener.port}", {"ca_file": authority().ca_file, **options}
        )


def test_days_left_decide():
    soon = authority().server_context("localhost", days=10.5)
    result = tls_probe(soon)
    assert result.outcome == "degraded"
    assert "expires on" in result.error
    assert "in 10 days" in result.error
    assert tls_probe(soon, cert_days_degraded=9).outcome == "ok"
    failed = tls_probe(soon, cert_days_failed=11)
    assert failed.outcome == "failed"
    assert failed.cert_expires_us == result.cert_expires_us > 0


def test_an_untrusted_certificate_is_read_all_the_same():
    result = tls_probe(authority().server_context("other.example.org"))
    assert result.outcome == "failed"
    assert "for another host, not for localhost (names other.example.org;" in result.error
    assert "issued by Collector test authority" in result.error
    assert result.cert_expires_us > 0


def test_an_expired_certificate():
    expired = authority().server_context("localhost", days=-2)
    result = tls_probe(expired)
    assert result.outcome == "failed"
    assert "has expired" in result.error
    unverified = tls_probe(expired, verify_tls=False)
    assert unverified.outcome == "failed"
    assert "expired on" in unverified.error


def test_a_self_signed_certificate():
    context = authority().server_context("localhost", self_signed=True)
    result = tls_probe(context)
    assert "self-signed" in result.error
    assert tls_probe(context, verify_tls=False).outcome == "ok"


def test_a_missing_file_of_authorities_is_named():
    result = tls_probe(authority().server_context(), ca_file="/no/such/file.pem")
    assert result.error == "the file of authorities /no/such/file.pem: No such file or directory"


# TCP


def tcp_probe(behaviour, **options):
    with Listener(behaviour) as listener:
        return stand.probe("tcp", listener.where, options)


def test_a_connection_alone_is_enough():
    assert tcp_probe(silent).outcome == "ok"
    assert tcp_probe(closes).outcome == "ok"


def test_the_reply_is_looked_through():
    result = tcp_probe(answers(b"220 mail ready\r\n"), expect="220 ")
    assert result.outcome == "ok"
    assert result.first_byte_ms >= 0
    wrong = tcp_probe(resets_after(b"", reads=4), send="EHLO", expect="250")
    assert wrong.outcome == "failed"
    assert "before the expected text came" in wrong.error


def test_another_reply_is_shown_in_part():
    def says(sock, listener):
        sock.sendall(b"550 go away\x00\xff" + b"y" * 500)

    result = tcp_probe(says, expect="220")
    assert "it begins with '550 go away\\x00\ufffdyyy" in result.error
    assert len(result.error) < 250


def test_an_endless_reply_is_bounded():
    result = tcp_probe(endless, expect="never")
    assert f"the first {MAX_REPLY_BYTES} bytes of the reply lack" in result.error


def test_bytes_can_be_written():
    assert unescape(r"a\r\n\t\0\\n\x00\xfF\q") == b"a\r\n\t\0\\n\x00\xff\\q"


# DNS


@pytest.fixture
def dns():
    with Nameserver() as server:
        yield server


def dns_probe(dns, name, **options):
    return stand.probe("dns", name, {"server": dns.where, **options})


RECORDS = {
    "A": (["192.0.2.1"], "192.0.2.1"),
    "AAAA": (["2001:db8::1"], "2001:0DB8:0::1"),
    "CNAME": (["www.example.net."], "WWW.example.net"),
    "MX": (["10 mx1.example.org.", "20 mx2.example.org."], "10 mx1.example.org"),
    "NS": (["ns1.example.org."], "ns1.example.org."),
    "TXT": (['"v=spf1 " "-all"'], "v=spf1 -all"),
    "SOA": (["ns1.example.org. root.example.org. 7 1 2 3 4"], None),
    "SRV": (["0 5 5060 sip.example.org."], "0 5 5060 sip.example.org"),
    "CAA": (['0 issue "ca.example"'], '0 issue "ca.example"'),
    "PTR": (["host.example.org."], "host.example.org"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_every_record_type_is_compared(dns, kind):
    records, expected = RECORDS[kind]
    dns.say("x.example.org", kind, records)
    assert dns_probe(dns, "x.example.org", record_type=kind).outcome == "ok"
    if expected is not None:
        wanted = {"record_type": kind, "expect": [expected]}
        assert dns_probe(dns, "x.example.org", match="contains", **wanted).error == ""
        other = dns_probe(
            dns, "x.example.org", match="contains", record_type=kind, expect=["9.9.9.9"]
        )
        assert f"the {kind} answer for x.example.org lacks 9.9.9.9; it is" in other.error


def test_equals_wants_no_others(dns):
    dns.say("x.example.org", "A", ["192.0.2.1", "192.0.2.2"])
    result = dns_probe(dns, "x.example.org", match="equals", expect=["192.0.2.2"])
    assert result.error == ("the A answer for x.example.org has 192.0.2.1 besides what is expected")


def test_an_alias_is_followed(dns):
    dns.say("x.example.org", "A", ["CNAME edge.example.net.", "192.0.2.1"])
    assert dns_probe(dns, "x.example.org", match="equals", expect=["192.0.2.1"]).outcome == "ok"


def test_an_address_is_asked_for_by_its_reverse_name(dns):
    dns.say("1.2.0.192.in-addr.arpa", "PTR", ["host.example.org."])
    assert dns_probe(dns, "192.0.2.1", record_type="PTR").outcome == "ok"


def test_that_a_name_must_not_exist(dns):
    dns.say("there.example.org", "A", ["192.0.2.1"])
    assert dns_probe(dns, "gone.example.org", nxdomain=True).outcome == "ok"
    assert "exists" in dns_probe(dns, "there.example.org", nxdomain=True).error
    assert "(NXDOMAIN)" in dns_probe(dns, "gone.example.org").error
    dns.fail("bad.example.org", "A", "SERVFAIL")
    # A server that fails has not said that there is no such name.
    assert dns_probe(dns, "bad.example.org", nxdomain=True).outcome == "failed"


def test_what_servers_do_wrong_is_said(dns):
    dns.fail("refused.example.org", "A", "REFUSED")
    dns.babble("odd.example.org", "A")
    dns.say("mail.example.org", "MX", ["10 mx.example.org."])
    assert "answered REFUSED" in dns_probe(dns, "refused.example.org").error
    assert "cannot be used" in dns_probe(dns, "odd.example.org").error
    assert dns_probe(dns, "mail.example.org").error == "mail.example.org has no A record"


def test_a_server_is_asked_afresh_each_time(dns):
    dns.say("x.example.org", "A", ["192.0.2.1"], ttl=600)
    for _ in range(3):
        assert dns_probe(dns, "x.example.org").outcome == "ok"
    assert dns.count("x.example.org", "A") == 3


def test_a_long_answer_comes_over_tcp(dns):
    dns.say("x.example.org", "A", [f"192.0.2.{n}" for n in range(1, 90)], truncated=True)
    assert dns_probe(dns, "x.example.org", match="contains", expect=["192.0.2.77"]).error == ""


def test_the_policy_judges_a_server_that_was_named(dns):
    dns.say("x.example.org", "A", ["192.0.2.1"])
    tools = stand.tools(policy=AddressPolicy(loopback_bound=False, words=PROBING))
    result = stand.probe("dns", "x.example.org", {"server": dns.where}, with_tools=tools)
    assert "COLLECTOR_PROBE_ALLOW" in result.error
    assert not dns.asked.is_set()


def test_without_a_server_this_machines_are_asked(dns):
    dns.say("x.example.org", "A", ["192.0.2.1"])
    tools = stand.tools(names=stand.resolver(dns), policy=AddressPolicy(loopback_bound=False))
    result = stand.probe("dns", "x.example.org", with_tools=tools)
    assert (result.outcome, result.address) == ("ok", dns.address)


# ICMP


@pings
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_echo_requests_come_back(address):
    if ":" in address and not can_ping(socket.AF_INET6):
        return
    result = stand.probe("icmp", address, {"count": 4, "gap_ms": 10, "size_bytes": 1400})
    assert (result.outcome, result.error, result.address) == ("ok", "", address)
    assert 0 < result.total_ms == result.first_byte_ms


@pings
def test_silence_is_loss_told_before_the_deadline():
    result = stand.probe("icmp", "192.0.2.251", {"count": 2, "gap_ms": 10}, timeout_s=4.0)
    assert result.outcome == "failed"
    assert result.error == "192.0.2.251 did not answer 2 of 2 echo requests"


@pings
def test_some_loss_is_allowed(monkeypatch):
    real, sent = icmp._request, []

    def lossy(family, identity, sequence, payload):
        sent.append(sequence)
        # One that nobody will take for an answer to what was sent.
        return real(family, identity, sequence, bytes(len(payload)) if sequence == 1 else payload)

    monkeypatch.setattr(icmp, "_request", lossy)
    options = {"count": 4, "gap_ms": 10}
    tolerated = stand.probe("icmp", "127.0.0.1", {**options, "max_loss_percent": 25}, timeout_s=4.0)
    assert tolerated.outcome == "ok"
    strict = stand.probe("icmp", "127.0.0.1", {**options, "max_loss_percent": 24}, timeout_s=4.0)
    assert strict.error == "127.0.0.1 did not answer 1 of 4 echo requests"


def test_without_permission_it_says_what_to_permit(monkeypatch):
    def refused(*args, **kw):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("healthmon.probes.icmp.socket.socket", refused)
    with pytest.raises(icmp.Unpermitted, match=r"ping_group_range='.*CAP_NET_RAW"):
        icmp._open(socket.AF_INET)


def test_checksums_are_the_internets():
    # RFC 1071's own example.
    assert icmp._checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    packet = icmp._request(socket.AF_INET, 7, 1, b"odd")
    assert icmp._checksum(packet) == 0


def test_what_others_are_told_is_not_ours():
    token = bytes(range(16))
    ours = icmp._HEADER.pack(0, 0, 0, 7, 3) + token
    header = b"\x45" + bytes(19)
    assert icmp._reply(header + ours, socket.AF_INET, True, 7, token) == 3
    assert icmp._reply(ours, socket.AF_INET, False, 9, token) == 3
    assert icmp._reply(header + ours, socket.AF_INET, True, 8, token) is None
    assert icmp._reply(ours, socket.AF_INET, False, 7, bytes(16)) is None
    request = icmp._HEADER.pack(8, 0, 0, 7, 3) + token
    assert icmp._reply(header + request, socket.AF_INET, True, 7, token) is None
    for short in (b"", b"\x45", header, ours[:10]):
        assert icmp._reply(short, socket.AF_INET, True, 7, token) is None
