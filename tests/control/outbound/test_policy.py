"""Which addresses may be connected to, in whatever form they are written."""

from __future__ import annotations

import pytest

from control.outbound import policy as policies
from control.outbound.policy import AddressPolicy, PolicyError, Words

WORDS = Words(done="probed", allow="ALLOW_SETTING", deny="DENY_SETTING")
ALWAYS = [
    "169.254.169.254",
    "169.254.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "fe80::1",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "255.255.255.255",
    # The same, carried in IPv6.
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001:db8::5efe:a9fe:a9fe",
    "2001:db8::200:5efe:a9fe:a9fe",
    "::ffff:0.0.0.0",
    "fe80::1%eth0",
    "2001:4860:4860::8888%1",
]
LOCAL = [
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("ip", ALWAYS)
@pytest.mark.parametrize("loopback_bound", [True, False])
def test_some_are_never_used_whatever_the_settings_say(ip, loopback_bound):
    policy = AddressPolicy(allow=["0.0.0.0/0", "::/0"], loopback_bound=loopback_bound, words=WORDS)
    assert "never probed" in policy.problem(ip)
    assert "never connected to" in AddressPolicy().problem(ip)


@pytest.mark.parametrize("ip", LOCAL)
def test_local_addresses_are_used_only_while_the_server_is_local(ip):
    assert AddressPolicy(loopback_bound=True).problem(ip) == ""
    problem = AddressPolicy(loopback_bound=False, words=WORDS).problem(ip)
    assert ip in problem
    assert "ALLOW_SETTING" in problem


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_used(ip):
    assert AddressPolicy(loopback_bound=False).problem(ip) == ""


def test_of_the_operators_networks_the_most_specific_decides():
    policy = AddressPolicy(
        allow=["10.0.0.0/8", "10.1.2.3/32", "10.9.0.0/16"],
        deny=["10.1.0.0/16", "0.0.0.0/0", "10.9.0.0/16"],
        loopback_bound=False,
    )
    assert policy.problem("10.200.0.1") == ""
    assert "10.1.0.0/16" in policy.problem("10.1.2.4")
    assert policy.problem("10.1.2.3") == ""
    assert "10.9.0.0/16" in policy.problem("10.9.0.1")  # as specific: deny
    assert "0.0.0.0/0" in policy.problem("8.8.8.8")


def test_a_denied_network_is_denied_inside_ipv6_too():
    policy = AddressPolicy(deny=["8.8.8.0/24"], loopback_bound=False, words=WORDS)
    for ip in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"):
        assert "DENY_SETTING" in policy.problem(ip), ip


def test_what_is_no_address_is_not_used():
    for text in ("", "localhost", "127.1", "0x7f.1", "1.2.3.4.5"):
        assert "not an IP address" in AddressPolicy().problem(text)


def test_a_network_that_cannot_be_read_names_its_setting():
    with pytest.raises(PolicyError, match=r"DENY_SETTING: 'ten/8'.*10\.0\.0\.0/8"):
        AddressPolicy(deny=["ten/8"], words=WORDS)


def test_what_was_judged_is_bounded(monkeypatch):
    monkeypatch.setattr(policies, "MAX_JUDGED", 10)
    policy = AddressPolicy()
    for last in range(100):
        policy.problem(f"192.0.2.{last}")
        assert len(policy._judged) <= 10


def test_a_host_that_the_operator_named_may_be_private_and_nothing_else_changes():
    policy = AddressPolicy(deny=["10.1.0.0/16"], loopback_bound=False, words=WORDS)
    trusting = policy.trusting()
    for ip in LOCAL:
        assert policy.problem(ip)
        assert trusting.problem(ip) == ""
    assert "DENY_SETTING" in trusting.problem("10.1.2.3")
    for ip in ALWAYS:
        assert "never probed" in trusting.problem(ip)
