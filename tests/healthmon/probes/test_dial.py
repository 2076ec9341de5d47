"""Connecting: the address that was judged is the one connected to, and nothing is left open."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest

from control.outbound.policy import AddressPolicy
from healthmon.probes.net import dial as dialling
from healthmon.probes.net.dial import DialError, deadline_text, dial
from healthmon.probes.net.exchange import Exchange
from tests.healthmon.probes import stand
from tests.healthmon.probes.listeners.authority import Authority, authority
from tests.healthmon.probes.listeners.nameserver import Nameserver
from tests.healthmon.probes.listeners.tcp import (
    Listener,
    answers,
    closed_port,
    closes,
    resets,
    resets_after,
    silent,
)

BIG = 3_000_000

# Which of the two it is, the kernel decides by what had arrived when the socket was closed.
ENDED = "reset|closed the connection during the TLS handshake"


def exchange() -> Exchange:
    return Exchange(max_bytes=2 * BIG, clock=time.perf_counter)


def trusted(**kw):
    return stand.CONTEXTS.get(True, authority().ca_file, **kw)


def dialled(host, port, tools=None, *, say=b"", until=None, **kw):
    """Dial, talk, close; what was found, and what was heard."""
    given = tools or stand.tools()

    async def run():
        connection = await dial(exchange, host=host, port=port, tools=given, **kw)
        try:
            if say:
                connection.transport.write(say)
            if until is not None:
                assert await connection.protocol.until(until)
            return connection, bytes(connection.protocol.data)
        finally:
            connection.transport.abort()

    return stand.on_loop(run, closing=given.resolver)


def refusal(host, port, tools=None, **kw) -> DialError:
    with pytest.raises(DialError) as caught:
        dialled(host, port, tools, **kw)
    assert str(caught.value) == caught.value.text
    return caught.value


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_connects_and_talks(address):
    with Listener(answers(b"pong", after=b"ping"), address=address) as listener:
        found, heard = dialled(address, listener.port, say=b"ping", until=lambda d: d == b"pong")
    assert heard == b"pong"
    assert found.address == address
    assert found.connect_ms > 0
    assert (found.dns_ms, found.tls_ms) == (-1.0, -1.0)
    assert found.peer_certificate() is None


def test_a_name_is_resolved_and_timed():
    with Nameserver() as dns, Listener(silent) as listener:
        dns.say("api.example.org", "A", ["127.0.0.1"])
        found, _ = dialled("api.example.org", listener.port, stand.tools(names=stand.resolver(dns)))
    assert found.address == "127.0.0.1"
    assert found.dns_ms > 0


@pytest.mark.parametrize("tls", [False, True])
def test_large_amounts_pass_both_ways(tls):
    context = authority().server_context() if tls else None
    end = b"!" + b"\n"
    with Listener(answers(b"x" * BIG, after=end), tls=context) as listener:
        _, heard = dialled(
            "127.0.0.1",
            listener.port,
            say=b"y" * BIG + end,
            until=lambda d: len(d) >= BIG,
            tls=trusted() if tls else None,
        )
        assert heard == b"x" * BIG
        assert len(listener.received[0]) == BIG + len(end)


# Names that change, and what they lead to


def test_a_name_that_turns_private_after_it_was_judged_changes_nothing():
    with Nameserver() as dns, Listener(silent) as listener:
        dns.say("moves.example.org", "A", ["127.0.0.2"], then=["127.0.0.1"])
        policy = AddressPolicy(deny=["127.0.0.1/32"])
        judged = []

        class Watched(AddressPolicy):
            def problem(self, ip):
                judged.append(ip)
                return policy.problem(ip)

        tools = stand.tools(names=stand.resolver(dns), policy=Watched())
        error = refusal("moves.example.org", listener.port, tools)
        assert judged == ["127.0.0.2"]
        assert error.phase == "connect"  # to the one that was judged, where nothing listens
        assert error.address == "127.0.0.2"
        assert listener.accepted == 0
        assert dns.count("moves.example.org", "A") == 1


def test_the_next_answer_is_judged_again():
    with Nameserver() as dns, Listener(silent, address="127.0.0.2") as listener:
        dns.say("moves.example.org", "A", ["127.0.0.2"], then=["127.0.0.1"], ttl=1)
        now = [0.0]
        tools = stand.tools(
            names=stand.resolver(dns, clock=lambda: now[0]),
            policy=AddressPolicy(deny=["127.0.0.1/32"]),
        )
        assert dialled("moves.example.org", listener.port, tools)[0].address == "127.0.0.2"
        now[0] += 2
        error = refusal("moves.example.org", listener.port, tools)
        assert error.phase == "address"
        assert error.text.startswith("127.0.0.1 is in 127.0.0.1/32")
        assert listener.accepted == 1


def test_each_address_of_an_answer_is_judged_by_itself():
    with Nameserver() as dns, Listener(silent, address="127.0.0.2") as listener:
        dns.say("mixed.example.org", "A", ["127.0.0.1", "169.254.169.254", "127.0.0.2"])
        tools = stand.tools(names=stand.resolver(dns), policy=AddressPolicy(deny=["127.0.0.1/32"]))
        assert dialled("mixed.example.org", listener.port, tools)[0].address == "127.0.0.2"


def test_a_denied_address_behind_one_that_refuses_is_not_connected_to():
    # Of the hosts file, whose order is kept.
    hosts = "127.0.0.2 mixed.example.org\n127.0.0.1 mixed.example.org\n"
    with Listener(silent) as listener:
        tools = stand.tools(
            names=stand.resolver(hosts=hosts), policy=AddressPolicy(deny=["127.0.0.1/32"])
        )
        error = refusal("mixed.example.org", listener.port, tools)
        assert (error.phase, error.address) == ("connect", "127.0.0.2")
        assert listener.accepted == 0


@pytest.mark.parametrize(
    "host", ["::ffff:127.0.0.1", "[::ffff:127.0.0.1]", "64:ff9b::7f00:1", "2002:7f00:1::"]
)
def test_a_denied_address_in_disguise_is_not_connected_to(host):
    with Listener(silent) as listener:
        tools = stand.tools(policy=AddressPolicy(loopback_bound=False))
        error = refusal(host, listener.port, tools)
        assert error.phase == "address"
        assert "127.0.0.1" in error.text
        assert listener.accepted == 0


def test_addresses_are_tried_in_order_and_the_last_is_named():
    hosts = "".join(f"127.0.0.{n} three.example.org\n" for n in (1, 2, 3))
    hosts += "".join(f"127.0.0.{n} two.example.org\n" for n in (1, 2))
    with Listener(silent, address="127.0.0.3") as listener:
        tools = stand.tools(names=stand.resolver(hosts=hosts))
        assert dialled("three.example.org", listener.port, tools)[0].address == "127.0.0.3"
        text = refusal("two.example.org", listener.port, tools).text
        assert text == (
            f"127.0.0.2:{listener.port} refused the connection: nothing listens there"
            " (the last of 2 addresses tried)"
        )


def test_an_address_that_is_silent_gives_way_to_the_next(monkeypatch):
    monkeypatch.setattr(dialling, "CONNECT_SLICE_S", 0.05)
    # The first is of the documentation's network: packets to it go nowhere.
    hosts = "192.0.2.250 half.example.org\n127.0.0.1 half.example.org\n"
    with Listener(silent) as listener:
        tools = stand.tools(names=stand.resolver(hosts=hosts))
        assert dialled("half.example.org", listener.port, tools)[0].address == "127.0.0.1"


# Faults


def test_a_closed_port():
    error = refusal("127.0.0.1", closed_port())
    assert error.phase == "connect"
    assert error.connect_ms > 0
    assert "refused" in error.text


def test_a_slow_name_is_what_the_deadline_says():
    held = threading.Event()
    with Nameserver() as dns:
        dns.say("slow.example.org", "A", ["127.0.0.1"], held=held)
        tools = stand.tools(names=stand.resolver(dns))

        async def run():
            try:
                async with asyncio.timeout(0.1):
                    await dial(exchange, host="slow.example.org", port=1, tools=tools)
            except TimeoutError as error:
                return deadline_text(error, 0.1)

        text = stand.on_loop(run, closing=tools.resolver)
        held.set()
    assert text == "no answer within 0.1 s: still resolving slow.example.org"


@pytest.mark.parametrize(
    ("names", "kw", "words"),
    [
        (("localhost",), {"days": -1}, "expired"),
        (("localhost",), {"begins_days": 1, "days": 9}, "not valid yet"),
        (("localhost",), {"self_signed": True}, "self-signed"),
        (("other.example.org",), {}, "is for another host, not for localhost"),
    ],
)
def test_a_bad_certificate_is_told_in_plain_words(names, kw, words):
    with Listener(silent, tls=authority().server_context(*names, **kw)) as listener:
        error = refusal("localhost", listener.port, tls=trusted())
        assert error.phase == "tls"
        assert words in error.text
        assert error.tls_code
        assert error.connect_ms > 0
        # Unverified it is taken, and read.
        found, _ = dialled("localhost", listener.port, tls=stand.CONTEXTS.get(False))
        assert found.tls_ms > 0
        assert stand.CONTEXTS.expires_us(found.peer_certificate()) > 0


def test_an_unknown_authority(tmp_path):
    other = Authority(tmp_path, name="Another authority")
    with Listener(silent, tls=other.server_context()) as listener:
        text = refusal("localhost", listener.port, tls=trusted()).text
        assert "unknown authority" in text


def test_the_server_name_decides_not_the_address():
    context = authority().server_context("api.example.org")
    with Listener(silent, tls=context) as listener:
        found, _ = dialled("127.0.0.1", listener.port, tls=trusted(), server_name="api.example.org")
        assert found.tls_ms > 0
        assert "127.0.0.1" in refusal("127.0.0.1", listener.port, tls=trusted()).text


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (resets, ENDED),
        (closes, ENDED),
        (resets_after(b""), ENDED),
        (resets_after(b"\x16\x03\x03\x00\x7a"), ENDED),
        (answers(b"HTTP/1.1 400 Bad Request\r\n\r\n", after=b"\x16\x03"), "does not speak TLS"),
        (answers(b"\x15\x03\x03\x00\x02\x02\x28", after=b"\x16\x03"), "refused the TLS handshake"),
        (answers(b"\x16\x03\x03\x00\x04\xff\xff\xff\xff" * 9, after=b"\x16\x03"), "TLS"),
    ],
)
def test_handshakes_that_fail_say_why(behaviour, words):
    with Listener(behaviour) as listener:
        error = refusal("127.0.0.1", listener.port, tls=trusted())
        assert error.phase in ("tls", "connect")
        assert re.search(words, error.text)


def test_a_silent_handshake_is_what_the_deadline_says():
    with Listener(silent) as listener:

        async def run():
            try:
                async with asyncio.timeout(0.1):
                    await dial(
                        exchange,
                        host="127.0.0.1",
                        port=listener.port,
                        tools=stand.tools(),
                        tls=trusted(),
                    )
            except TimeoutError as error:
                return deadline_text(error, 0.1)

        assert stand.on_loop(run) == (
            f"no answer within 0.1 s: still in the TLS handshake with {listener.where}"
        )


def test_a_reset_after_the_handshake_reaches_the_protocol():
    context = authority().server_context()
    with Listener(resets_after(b"half"), tls=context) as listener:

        async def run():
            connection = await dial(
                exchange,
                host="localhost",
                port=listener.port,
                tools=stand.tools(),
                tls=trusted(),
            )
            connection.transport.write(b"x")
            whole = await connection.protocol.until(lambda data: b"whole" in data)
            connection.transport.abort()
            return whole, connection.protocol.ended

        assert stand.on_loop(run) == (False, True)


# Cut off


@pytest.mark.parametrize("tls", [False, True])
def test_cut_off_at_any_await_leaves_nothing_open(tls):
    with (
        Nameserver() as dns,
        Listener(silent, tls=authority().server_context() if tls else None) as listener,
    ):
        dns.say("localhost.example.org", "A", ["127.0.0.1"])
        names = stand.resolver(dns)
        tools = stand.tools(names=names)

        async def once():
            names._entries.clear()  # so that resolving is awaited as well
            connection = await dial(
                exchange,
                host="localhost.example.org",
                port=listener.port,
                tools=tools,
                tls=trusted() if tls else None,
                server_name="localhost",
            )
            connection.transport.abort()

        places = stand.cut_off_everywhere(once, closing=names)
    # Resolving, connecting, and TLS: while waiting and just after.
    assert places == (6 if tls else 4)


def test_a_protocol_that_fails_takes_only_its_connection_along():
    class Broken(asyncio.Protocol):
        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()

        def data_received(self, data):
            raise ValueError("broken")

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    with Listener(answers(b"hello")) as listener:

        async def run():
            connection = await dial(
                Broken, host="127.0.0.1", port=listener.port, tools=stand.tools()
            )
            return await connection.protocol.lost

        assert repr(stand.on_loop(run)) == "ValueError('broken')"


def test_a_protocol_that_cannot_be_made_leaves_nothing_open():
    def broken():
        raise ValueError("broken")

    with Listener(silent) as listener:

        async def run():
            await dial(broken, host="127.0.0.1", port=listener.port, tools=stand.tools())

        with pytest.raises(ValueError, match="broken"):
            stand.on_loop(run)
