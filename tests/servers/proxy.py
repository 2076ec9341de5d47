"""A TCP proxy that loses, holds or delays what passes through it.

    with Proxy(("127.0.0.1", 5432)) as proxy, postgres_proxy(dsn) as (dsn_through_it, proxy):
        proxy.cut()                     every connection is reset, new ones too, until heal()
        proxy.stall()                   connections stay, new ones come, no byte passes until heal()
        proxy.half_close("client")      the client reads an end of file; the server notices nothing
        proxy.half_close("server")      the server reads an end of file; the client waits for ever
        held = proxy.hold_answer_to(b"COMMIT\\0")
        held = proxy.hold_request(b"COMMIT\\0")     the same, before the server has seen it
        held.wait(30)                   True once the server's answer (the request) lies here
        held.release() | held.cut()     pass it on, or reset that connection: the answer is lost
        proxy.wait_stalled(30)          True once bytes stand before a stall or a held answer
        proxy.heal()                    all is well again: what was stalled passes, held answers too
        proxy.connections, .accepted, .struck   open now, accepted ever, met by a fault

An answer to a statement: whatever the server sends after the bytes were seen on their way to it.
One `hold_answer_to` holds one answer.  Bytes are matched across the pieces they arrive in.

Threads: one that accepts, and two per connection, one for each direction; all are daemons and end
with `close`.  `_changed` guards every field of the proxy and of its links and wakes the threads
that stand at a gate; sockets are read and written outside it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal

import psycopg

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

Side = Literal["client", "server"]
_PIECE = 65_536
_CONNECT_S = 10.0


class Held:
    """One answer that is held, once it came; or one request, whose sender is then `client`."""

    def __init__(self, proxy: Proxy, needle: bytes, sender: Side) -> None:
        self._proxy = proxy
        self.sender = sender
        self.needle = needle
        self.link: _Link | None = None
        self.answered = threading.Event()
        self.over = False

    def wait(self, timeout_s: float) -> bool:
        """Whether what is held has come; for an answer, what the server was asked to do is done."""
        return self.answered.wait(timeout_s)

    def release(self) -> None:
        """Pass the answer on, and whatever comes later."""
        self._proxy._end_hold(self, cut=False)

    def cut(self) -> None:
        """Reset the connection: the answer is lost."""
        self._proxy._end_hold(self, cut=True)


class _Link:
    """A client's connection and the one made for it to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.hold: Held | None = None
        self.tail = b""
        self.mute: set[Side] = set()  # whose bytes are dropped, and who was told it ended
        self.open = 2

    def reset(self) -> None:
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Closing alone wakes no thread that reads or writes it; shutting down alone sends no
            # reset, which the close does as soon as the last thread has let go.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                one.close()


class Proxy:
    """Passes bytes between clients and the server at `target`, and strikes when it is told to."""

    def __init__(self, target: Address, *, port: int = 0) -> None:
        self._target = target
        self._changed = threading.Condition()
        self._links: set[_Link] = set()
        self._holds: list[Held] = []
        self._cut = self._stalled = self._closed = False
        self._waiting = 0
        self.accepted = 0
        self.struck = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="proxy-accept", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        with self._changed:
            return len(self._links)

    def cut(self) -> None:
        """Reset every connection, and each new one, until `heal`."""
        with self._changed:
            self._cut = True
            links = list(self._links)
            self.struck += len(links)
        for link in links:
            self._drop(link)

    def stall(self) -> None:
        """Let no byte pass until `heal`; nobody is told."""
        with self._changed:
            self._stalled = True
            self.struck += len(self._links)

    def half_close(self, towards: Side = "client") -> None:
        """Tell one side that the other has ended; that other side is told nothing from then on."""
        with self._changed:
            links = list(self._links)
            self.struck += len(links)
            for link in links:
                link.mute |= {"server"} if towards == "client" else {"client", "server"}
            self._changed.notify_all()
        for link in links:
            with contextlib.suppress(OSError):
                (link.client if towards == "client" else link.server).shutdown(socket.SHUT_WR)

    def hold_answer_to(self, needle: bytes) -> Held:
        """Hold what the server sends on the connection that next sends `needle`."""
        return self._hold(Held(self, needle, "server"))

    def hold_request(self, needle: bytes) -> Held:
        """Hold `needle` and what follows it, also when the client is gone meanwhile."""
        return self._hold(Held(self, needle, "client"))

    def _hold(self, held: Held) -> Held:
        with self._changed:
            self._holds.append(held)
        return held

    def wait_stalled(self, timeout_s: float) -> bool:
        """Whether bytes came that do not pass."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting > 0, timeout_s)

    def heal(self) -> None:
        """End every fault that can end; half-closed connections stay as they are."""
        with self._changed:
            self._cut = self._stalled = False
            for held in self._holds:
                held.over = True
            self._holds.clear()
            for link in self._links:
                if link.hold is not None:
                    link.hold.over = True
                    link.hold = None
            self._changed.notify_all()

    def close(self) -> None:
        """End every connection and take no more."""
        with self._changed:
            self._closed = True
            links = list(self._links)
            self._changed.notify_all()
        # A listener that is only closed leaves its thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in links:
            self._drop(link)
        self._acceptor.join(_CONNECT_S)

    # --- threads ---------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._begin, args=(client,), name="proxy-connect", daemon=True
            ).start()

    def _begin(self, client: socket.socket) -> None:
        with self._changed:
            self.accepted += 1
            refused = self._cut or self._closed
            self.struck += refused
        try:
            server = self._connect() if not refused else None
        except OSError:
            server = None
        if server is None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        link = _Link(client, server)
        with self._changed:
            self._links.add(link)
            unwanted = self._cut or self._closed
            self.struck += self._cut
        if unwanted:
            self._drop(link)
        threading.Thread(
            target=self._pump, args=(link, "server"), name="proxy-down", daemon=True
        ).start()
        self._pump(link, "client")

    def _connect(self) -> socket.socket:
        if isinstance(self._target, str):
            server = socket.socket(socket.AF_UNIX)
            server.settimeout(_CONNECT_S)
            server.connect(self._target)
        else:
            server = socket.create_connection(self._target, timeout=_CONNECT_S)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.settimeout(None)
        return server

    def _pump(self, link: _Link, side: Side) -> None:
        """Carry what `side` sends to the other."""
        source, target = link.client, link.server
        if side == "server":
            source, target = target, source
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if side == "client":
                    self._look_for_needles(link, data)
                if self._passes(link, side):
                    target.sendall(data)
            if self._passes(link, side):
                target.shutdown(socket.SHUT_WR)
        with self._changed:
            link.open -= 1
            last = not link.open
        if last:
            self._drop(link)

    def _look_for_needles(self, link: _Link, data: bytes) -> None:
        with self._changed:
            if not self._holds or link.hold is not None:
                link.tail = data[-256:]
                return
            seen = link.tail + data
            for held in self._holds:
                # A needle that lay wholly in earlier pieces was passed before the hold was asked.
                if seen.find(held.needle, max(0, len(link.tail) - len(held.needle) + 1)) >= 0:
                    self._holds.remove(held)
                    held.link, link.hold = link, held
                    self.struck += 1
                    break
            link.tail = seen[-256:]

    def _passes(self, link: _Link, side: Side) -> bool:
        """Wait until the bytes may pass; False when they are to be dropped."""
        with self._changed:
            if link.hold is not None and link.hold.sender == side:
                link.hold.answered.set()
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    link not in self._links
                    or side in link.mute
                    or not (self._stalled or (link.hold is not None and link.hold.sender == side))
                )
            )
            self._waiting -= 1
            return link in self._links and side not in link.mute

    # --- ends ------------------------------------------------------------------------------

    def _end_hold(self, held: Held, *, cut: bool) -> None:
        with self._changed:
            held.over = True
            if held in self._holds:
                self._holds.remove(held)
            link = held.link
            if link is not None and link.hold is held:
                link.hold = None
            else:
                link = None
            if not cut:
                self._changed.notify_all()
            elif link is not None:
                self._links.discard(link)
                self._changed.notify_all()
        if cut and link is not None:
            link.reset()

    def _drop(self, link: _Link) -> None:
        with self._changed:
            self._links.discard(link)
            self._changed.notify_all()
        link.reset()


@contextlib.contextmanager
def postgres_proxy(dsn: str) -> Iterator[tuple[str, Proxy]]:
    """A proxy before the PostgreSQL at `dsn`, and the DSN that goes through it."""
    with psycopg.connect(dsn) as connection:
        host, port = connection.info.host, connection.info.port
    target: Address = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
    with Proxy(target) as proxy:
        through = psycopg.conninfo.make_conninfo(
            dsn, host="127.0.0.1", port=str(proxy.port), sslmode="disable", gssencmode="disable"
        )
        yield through, proxy
