"""The transport by itself: pauses, ends, and what a half-closed or rude peer does to it."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from healthmon.probes.net.dial import dial
from tests.healthmon.probes import stand
from tests.healthmon.probes.listeners.authority import authority
from tests.healthmon.probes.listeners.tcp import Listener, answers, endless


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = bytearray()
        self.said: list[str] = []
        self.some = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.said.append("made")

    def data_received(self, data):
        self.data += data
        self.some.set()

    def eof_received(self):
        self.said.append("eof")

    def connection_lost(self, exc):
        self.said.append(f"lost {exc}")
        self.lost.set()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request):
    return request.param


def on_connection(tls, behaviour, use):
    with Listener(behaviour, tls=authority().server_context() if tls else None) as listener:

        async def run():
            connection = await dial(
                Recorder,
                host="localhost",
                port=listener.port,
                tools=stand.tools(),
                tls=stand.CONTEXTS.get(True, authority().ca_file) if tls else None,
            )
            try:
                return await use(connection.transport, connection.protocol)
            finally:
                connection.transport.abort()
                connection.transport.abort()  # harmless twice

        return stand.on_loop(run), listener


def test_the_peers_end_is_told_once_and_closes(tls):
    def says_and_goes(sock, listener):
        sock.sendall(b"bye")

    async def use(transport, protocol):
        await protocol.lost.wait()
        return bytes(protocol.data), protocol.said, transport.is_closing()

    found, _ = on_connection(tls, says_and_goes, use)
    assert found == (b"bye", ["made", "eof", "lost None"], True)


def test_close_sends_what_is_left_first(tls):
    async def use(transport, protocol):
        transport.write(b"z" * 3_000_000)
        transport.write(b"end")
        transport.close()
        transport.write(b"too late")
        await protocol.lost.wait()
        assert transport.get_write_buffer_size() == 0
        assert await asyncio.to_thread(whole.wait, stand.WAIT_S)
        return protocol.said

    got = []
    whole = threading.Event()

    def reads(sock, listener):
        while data := sock.recv(65_536):
            got.append(data)
        whole.set()

    said, _ = on_connection(tls, reads, use)
    assert said == ["made", "lost None"]
    assert b"".join(got) == b"z" * 3_000_000 + b"end"


def test_a_pause_stops_an_endless_peer(tls):
    async def use(transport, protocol):
        await protocol.some.wait()
        transport.pause_reading()
        transport.pause_reading()
        held = len(protocol.data)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(protocol.data) == held
        assert not transport.is_reading()
        protocol.some.clear()
        transport.resume_reading()
        await protocol.some.wait()
        return len(protocol.data) > held

    assert on_connection(tls, endless, use)[0]


def test_a_pause_while_data_is_told_holds_back_the_rest(tls):
    class Pausing(Recorder):
        def __init__(self):
            super().__init__()
            self.times = 0

        def data_received(self, data):
            self.times += 1
            transport.pause_reading()
            super().data_received(data)

    transport: asyncio.ReadTransport

    async def use(given, protocol):
        nonlocal transport
        transport = given
        pausing = Pausing()
        given.set_protocol(pausing)
        given.write(b"?")
        # Several TLS records in one read of the socket, so that some are held already decrypted.
        for times in range(1, 100):
            await pausing.some.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            assert pausing.times == times
            if len(pausing.data) == 40_000:
                return bytes(pausing.data)
            pausing.some.clear()
            given.resume_reading()
        return None

    assert on_connection(tls, answers(b"m" * 40_000, after=b"?"), use)[0] == b"m" * 40_000


def test_after_abort_nothing_is_told_but_the_end(tls):
    async def use(transport, protocol):
        await protocol.some.wait()
        transport.abort()
        held = len(protocol.data)
        transport.write(b"unheard")
        await protocol.lost.wait()
        assert len(protocol.data) == held
        return protocol.said

    assert on_connection(tls, endless, use)[0] == ["made", "lost None"]


def test_what_is_asked_of_it(tls):
    async def use(transport, protocol):
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        assert transport.get_extra_info("socket").fileno() > 0
        assert (transport.get_extra_info("ssl_object") is not None) == tls
        assert transport.get_extra_info("none of it", 7) == 7
        assert not transport.can_write_eof()
        other = Recorder()
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        transport.write(b"?")
        await other.some.wait()
        return bytes(other.data)

    assert on_connection(tls, answers(b"!", after=b"?"), use)[0] == b"!"


class Asking(Recorder):
    """Goes on asking when the peer has answered and gone, before it has read that."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write(b"first")
        assert self._listener.released.wait(stand.WAIT_S)
        for _ in range(3):
            transport.write(b"more")


@pytest.mark.parametrize(
    ("says_goodbye", "end"),
    [
        (True, ["made", "eof", "lost None"]),
        (False, ["made", "lost [Errno 104] Connection reset by peer"]),
    ],
)
def test_an_answer_that_came_is_read_though_the_peer_reads_no_more(says_goodbye, end):
    def answers_and_goes(sock, listener):
        sock.recv(1)
        sock.sendall(b"no, thank you")
        if says_goodbye:
            sock.shutdown(socket.SHUT_WR)
        sock.close()  # with something unread: a reset
        listener.released.set()

    with Listener(answers_and_goes) as listener:

        async def run():
            connection = await dial(
                lambda: Asking(listener), host="localhost", port=listener.port, tools=stand.tools()
            )
            await connection.protocol.lost.wait()
            return bytes(connection.protocol.data), connection.protocol.said

        assert stand.on_loop(run) == (b"no, thank you", end)
