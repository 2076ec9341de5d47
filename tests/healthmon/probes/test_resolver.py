"""Names to addresses: what is kept, what is shared, what is bounded, and how failure reads."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from healthmon.probes.net.machine import RECHECK_S
from healthmon.probes.net.resolver import NEGATIVE_S, ResolveError, Resolver
from tests.healthmon.probes import stand
from tests.healthmon.probes.listeners.nameserver import Nameserver


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def dns():
    with Nameserver() as server:
        yield server


@pytest.fixture
def clock():
    return Clock()


def ask(resolver: Resolver, *hosts: str, **kw):
    async def all_of_them():
        return [await resolver.resolve(host, **kw) for host in hosts]

    return stand.on_loop(all_of_them, closing=resolver)


def problem(resolver: Resolver, host: str, **kw) -> str:
    with pytest.raises(ResolveError) as caught:
        ask(resolver, host, **kw)
    return str(caught.value)


def test_addresses_and_the_hosts_file_need_no_question(dns):
    names = stand.resolver(
        dns, hosts="# c\n127.0.0.1 localhost\n192.0.2.9  DB db.example.org # x\n"
    )
    found = ask(names, "192.0.2.1", "::1", "[::1]", "0:0:0:0:0:0:0:1", "db", "DB.example.org.")
    assert found == [["192.0.2.1"], ["::1"], ["::1"], ["::1"], ["192.0.2.9"], ["192.0.2.9"]]
    assert not dns.asked.is_set()


def test_localhost_never_leaves_the_machine(dns):
    assert ask(stand.resolver(dns, hosts=""), "localhost") == [["127.0.0.1", "::1"]]
    assert not dns.asked.is_set()


def test_an_answer_is_kept_as_long_as_its_ttl_says(dns, clock):
    dns.say("api.example.org", "A", ["192.0.2.1"], then=["192.0.2.2"], ttl=30)
    names = stand.resolver(dns, clock=clock)
    assert ask(names, "api.example.org") == [["192.0.2.1"]]
    clock.now += 29.9
    assert ask(names, "api.example.org", "API.example.org") == [["192.0.2.1"]] * 2
    assert dns.count("api.example.org", "A") == 1
    clock.now += 0.2
    assert ask(names, "api.example.org") == [["192.0.2.2"]]
    assert dns.count("api.example.org", "A") == 2


def test_the_ttl_is_clamped(dns, clock):
    dns.say("zero.example.org", "A", ["192.0.2.1"], ttl=0)
    dns.say("ever.example.org", "A", ["192.0.2.2"], ttl=10_000_000)
    names = stand.resolver(dns, clock=clock)
    ask(names, "zero.example.org", "ever.example.org")
    clock.now += 0.9
    ask(names, "zero.example.org")
    assert dns.count("zero.example.org", "A") == 1
    clock.now += 3599.2
    ask(names, "zero.example.org", "ever.example.org")
    assert dns.count("zero.example.org", "A") == 2
    assert dns.count("ever.example.org", "A") == 2


def test_the_shortest_ttl_along_an_alias_counts(dns, clock):
    dns.say("www.example.org", "A", ["CNAME edge.example.net.", "192.0.2.1"], ttl=20)
    names = stand.resolver(dns, clock=clock)
    assert ask(names, "www.example.org") == [["192.0.2.1"]]
    clock.now += 21
    ask(names, "www.example.org")
    assert dns.count("www.example.org", "A") == 2


def test_ipv6_is_asked_for_where_there_is_no_ipv4(dns):
    dns.say("six.example.org", "AAAA", ["2001:db8::1"])
    dns.say("both.example.org", "A", ["192.0.2.1"])
    dns.say("both.example.org", "AAAA", ["2001:db8::2"])
    names = stand.resolver(dns)
    assert ask(names, "six.example.org", "both.example.org") == [["2001:db8::1"], ["192.0.2.1"]]
    assert ask(names, "both.example.org", family=6) == [["2001:db8::2"]]
    assert problem(names, "six.example.org", family=4) == "six.example.org has no IPv4 address"
    assert problem(names, "192.0.2.1", family=6) == "192.0.2.1 is not an IPv6 address"


def test_that_a_name_does_not_exist_is_kept_for_a_moment(dns, clock):
    names = stand.resolver(dns, clock=clock)
    for _ in range(3):
        text = problem(names, "gone.example.org")
        assert text == "gone.example.org does not exist (NXDOMAIN)"
    assert dns.count("gone.example.org", "A") == 1
    clock.now += NEGATIVE_S + 0.1
    problem(names, "gone.example.org")
    assert dns.count("gone.example.org", "A") == 2


def test_a_name_without_addresses_is_told_apart(dns):
    dns.say("mail.example.org", "MX", ["10 mx.example.org."])
    assert problem(stand.resolver(dns), "mail.example.org") == "mail.example.org has no address"


def test_failing_and_silent_nameservers_are_told_in_a_sentence(dns):
    dns.fail("bad.example.org", "A", "SERVFAIL")
    dns.ignore("slow.example.org", "A")
    dns.babble("odd.example.org", "A")
    names = stand.resolver(dns, try_s=0.05, lifetime_s=0.2)
    assert "every nameserver failed to answer for bad.example.org" in problem(
        names, "bad.example.org"
    ) or "in time" in problem(names, "bad.example.org")
    assert problem(names, "slow.example.org") == (
        "no nameserver answered for slow.example.org in time"
    )
    assert "odd.example.org" in problem(names, "odd.example.org")


def test_no_nameserver_at_all_is_said():
    assert problem(stand.resolver(), "a.example.org") == "this machine names no nameserver"


def test_the_next_nameserver_is_asked_and_then_first(dns):
    with Nameserver("127.0.0.2") as unused:
        dead = unused
    alive = dns
    dead.port = alive.port  # nobody listens at 127.0.0.2 on that port
    alive.say("a.example.org", "A", ["192.0.2.1"])
    names = stand.resolver([dead, alive], try_s=0.2, lifetime_s=30)
    assert ask(names, "a.example.org") == [["192.0.2.1"]]
    machine = names._machine.resolver
    assert machine is not None
    assert machine.nameservers[0] == alive.address


def test_a_cut_off_answer_is_asked_for_again_over_tcp(dns):
    many = [f"192.0.2.{last}" for last in range(1, 100)]
    dns.say("many.example.org", "A", many, truncated=True)
    assert sorted(ask(stand.resolver(dns), "many.example.org")[0]) == sorted(many)
    assert dns.over_tcp == 1


def test_search_domains_are_tried(dns):
    dns.say("db.corp.example", "A", ["192.0.2.7"])
    names = stand.resolver(dns, search="search other.example corp.example")
    assert ask(names, "db") == [["192.0.2.7"]]


def test_probes_share_one_question(dns):
    held = threading.Event()
    dns.say("api.example.org", "A", ["192.0.2.1"], held=held)
    names = stand.resolver(dns)

    async def many():
        tasks = [asyncio.create_task(names.resolve("api.example.org")) for _ in range(50)]
        assert await asyncio.to_thread(dns.asked.wait, stand.WAIT_S)
        tasks[0].cancel()  # whoever asked first may go: the others are answered
        held.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = stand.on_loop(many, closing=names)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [["192.0.2.1"]] * 49
    assert dns.count("api.example.org", "A") == 1


def test_questions_are_bounded_and_those_nobody_waits_for_are_not_asked(dns):
    held = threading.Event()
    for name in ("a", "b", "c"):
        dns.say(f"{name}.example.org", "A", ["192.0.2.1"], held=held)
    names = stand.resolver(dns, concurrency=1, max_questions=2)

    async def crowd():
        first = asyncio.create_task(names.resolve("a.example.org"))
        assert await asyncio.to_thread(dns.asked.wait, stand.WAIT_S)
        second = asyncio.create_task(names.resolve("b.example.org"))
        await asyncio.sleep(0)
        with pytest.raises(ResolveError, match="2 other names are waiting"):
            await names.resolve("c.example.org")
        second.cancel()
        await asyncio.wait((second,))
        held.set()
        return await first

    assert stand.on_loop(crowd, closing=names) == ["192.0.2.1"]
    assert dns.count("b.example.org", "A") == 0
    assert names.questions == 0


def test_answers_kept_are_bounded(dns):
    for last in range(20):
        dns.say(f"n{last}.example.org", "A", ["192.0.2.1"])
    names = stand.resolver(dns, max_entries=5)
    ask(names, *(f"n{last}.example.org" for last in range(20)))
    assert names.entries == 5


def test_changed_files_are_read_again(dns, clock):
    names = stand.resolver(dns, hosts="192.0.2.1 db\n", clock=clock)
    hosts = Path(names._machine._hosts_path)
    assert ask(names, "db") == [["192.0.2.1"]]
    hosts.write_text("192.0.2.222 db\n")
    os.utime(hosts, (1, 1))
    assert ask(names, "db") == [["192.0.2.1"]]  # not looked at again so soon
    clock.now += RECHECK_S + 0.1
    assert ask(names, "db") == [["192.0.2.222"]]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.1", "neither a host name nor an IP address"),
        ("0x7f000001", "neither a host name nor an IP address"),
        ("2130706433", "neither a host name nor an IP address"),
        ("", "there is no host"),
        ("a b", "not a host name"),
        ("a..b", "not a host name"),
        ("x" * 64 + ".org", "not a host name"),
        ("a" * 300, "253 characters"),
    ],
)
def test_what_is_no_name_is_not_asked_for(dns, host, words):
    assert words in problem(stand.resolver(dns), host)
    assert not dns.asked.is_set()


def test_names_beyond_ascii_are_asked_for_in_their_own_form(dns):
    dns.say("xn--bcher-kva.example", "A", ["192.0.2.1"])
    assert ask(stand.resolver(dns), "Bücher.example") == [["192.0.2.1"]]
    # The same form as in a URL: IDNA 2008, which keeps what 2003 had spelt otherwise.
    dns.say("xn--fa-hia.example", "A", ["192.0.2.2"])
    assert ask(stand.resolver(dns), "FAß.example") == [["192.0.2.2"]]
