"""The proxy that the tests of faults stand on: an echo behind it, each fault before it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.servers.proxy import Proxy

WAIT_S = 180.0


class Echo:
    """Answers every piece with itself, and counts what it was sent."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.seen = b""
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(4096):
                    self.seen += data
                    peer.sendall(data)
            except OSError:
                pass
        self.ended.release()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.listener.getsockname()) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"
        yield client


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    answer = b""
    while len(answer) < len(data):
        piece = client.recv(4096)
        if not piece:
            break
        answer += piece
    return answer


def is_lost(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_bytes_pass_both_ways_and_an_end_is_passed_on(echo, proxy, client):
    big = bytes(300_000)
    sender = threading.Thread(target=client.sendall, args=(big,))
    sender.start()
    left = len(big)
    while left:
        left -= len(client.recv(65_536))
    sender.join(WAIT_S)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    assert echo.ended.acquire(timeout=WAIT_S)
    assert (proxy.accepted, proxy.struck) == (1, 0)


def test_a_cut_ends_connections_and_refuses_new_ones_until_healed(echo, proxy, client):
    proxy.cut()
    assert is_lost(client)
    assert echo.ended.acquire(timeout=WAIT_S)
    try:
        with connect(proxy) as refused:
            assert is_lost(refused)
    except ConnectionResetError:
        pass  # cut off even before the connection was told of
    proxy.heal()
    with connect(proxy) as again:
        assert ask(again, b"back") == b"back"
    assert proxy.struck == 2


def test_what_stalls_passes_later(echo, proxy, client):
    proxy.stall()
    client.sendall(b"late")
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(4)
    assert echo.seen == b"hello"
    proxy.heal()
    client.settimeout(WAIT_S)
    assert client.recv(4) == b"late"


def test_a_half_close_tells_one_side_only(echo, proxy, client):
    proxy.half_close("client")
    assert client.recv(1) == b""
    assert not echo.ended.acquire(blocking=False)
    with connect(proxy) as other:
        assert ask(other, b"x") == b"x"
        assert echo.seen == b"hellox"
        proxy.half_close("server")
        assert echo.ended.acquire(timeout=WAIT_S)
        other.settimeout(0.05)
        with pytest.raises(TimeoutError):
            other.recv(1)


@pytest.mark.parametrize("lost", [True, False])
def test_an_answer_is_held_then_lost_or_released(echo, proxy, client, lost):
    held = proxy.hold_answer_to(b"COMMIT;")
    client.sendall(b"...COM")
    assert client.recv(6) == b"...COM"
    client.sendall(b"MIT;")
    assert held.wait(WAIT_S)
    assert echo.seen.endswith(b"COMMIT;")
    if lost:
        held.cut()
        assert is_lost(client)
    else:
        held.release()
        assert client.recv(4) == b"MIT;"
        assert ask(client, b"on") == b"on"
    with connect(proxy) as other:
        assert ask(other, b"COMMIT;") == b"COMMIT;"


def test_closing_ends_what_is_held_or_stalled(echo):
    proxy = Proxy(echo.listener.getsockname())
    with connect(proxy) as client:
        assert ask(client, b"x") == b"x"
        proxy.stall()
        client.sendall(b"y")
        proxy.close()
        assert is_lost(client)
