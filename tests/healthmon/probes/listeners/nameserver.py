"""A nameserver on UDP and TCP that answers as scripted, and counts what it was asked.

    with Nameserver() as dns:
        dns.say("api.example.org", "A", ["192.0.2.1"], ttl=30)
        dns.say("moves.example.org", "A", ["192.0.2.1"], then=["127.0.0.1"])

Names without a script do not exist; the order of records is not kept.  A thread for each
transport; `_lock` guards script and counts.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class Script:
    answers: list[list[str]]
    ttl: int = 60
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    silent: bool = False
    garbage: bool = False
    truncated: bool = False
    held: threading.Event | None = None
    asked: int = 0


class Nameserver:
    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self._udp, self._tcp = _bound(address)
        self.port: int = self._udp.getsockname()[1]
        self.asked = threading.Event()
        self._lock = threading.Lock()
        self._scripts: dict[tuple[str, str], Script] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self.over_tcp = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []

    @property
    def where(self) -> str:
        return f"{self.address}:{self.port}"

    def say(
        self,
        name: str,
        rdtype: str,
        records: list[str],
        *,
        then: list[str] | None = None,
        ttl: int = 60,
        truncated: bool = False,
        held: threading.Event | None = None,
    ) -> None:
        """What to answer; `then` from the second time on; `held` waits for the event first."""
        answers = [records] if then is None else [records, then]
        self._put(name, rdtype, Script(answers, ttl=ttl, truncated=truncated, held=held))

    def fail(self, name: str, rdtype: str, rcode: str) -> None:
        self._put(name, rdtype, Script([[]], rcode=dns.rcode.from_text(rcode)))

    def ignore(self, name: str, rdtype: str) -> None:
        self._put(name, rdtype, Script([[]], silent=True))

    def babble(self, name: str, rdtype: str) -> None:
        self._put(name, rdtype, Script([[]], garbage=True))

    def count(self, name: str, rdtype: str) -> int:
        with self._lock:
            return self._counts.get(_key(name, rdtype), 0)

    def __enter__(self) -> Self:
        for run in (self._serve_udp, self._serve_tcp):
            thread = threading.Thread(target=run, name="nameserver", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        for sock in (self._udp, self._tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with socket.socket(self._udp.family, socket.SOCK_DGRAM) as nudge:
            nudge.sendto(b"", (self.address, self.port))
        for thread in self._threads:
            thread.join(30)
        self._udp.close()
        self._tcp.close()

    def _put(self, name: str, rdtype: str, script: Script) -> None:
        with self._lock:
            self._scripts[_key(name, rdtype)] = script

    def _serve_udp(self) -> None:
        while not self._stopping:
            try:
                wire, peer = self._udp.recvfrom(4096)
            except OSError:
                return
            if wire and not self._stopping:
                # A held answer must not hold the others.
                threading.Thread(
                    target=self._answer_udp, args=(wire, peer), name="answer", daemon=True
                ).start()

    def _answer_udp(self, wire: bytes, peer: tuple[str, int]) -> None:
        reply = self._reply(wire, tcp=False)
        if reply:
            try:
                self._udp.sendto(reply, peer)
            except OSError:
                return

    def _serve_tcp(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock:
                try:
                    (size,) = struct.unpack("!H", sock.recv(2))
                    reply = self._reply(sock.recv(size), tcp=True)
                    sock.sendall(struct.pack("!H", len(reply)) + reply)
                except (OSError, struct.error):
                    continue

    def _reply(self, wire: bytes, *, tcp: bool) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        key = (question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1
            self.over_tcp += tcp
            script = self._scripts.get(key)
            known = any(name == key[0] for name, _ in self._scripts)
            if script is not None:
                records = script.answers[min(script.asked, len(script.answers) - 1)]
                script.asked += 1
        self.asked.set()
        response = dns.message.make_response(query)
        if script is None:
            response.set_rcode(dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN)
            return response.to_wire(max_size=65_535)
        if script.held is not None:
            script.held.wait(60)
        if script.silent:
            return b""
        if script.garbage:
            return wire[:2] + b"\x81\x80" + b"\xff" * 40
        response.set_rcode(script.rcode)
        if script.truncated and not tcp:
            response.flags |= dns.flags.TC
        elif records:
            _add(response, question.name, key[1], records, script.ttl)
        return response.to_wire(max_size=65_535)


def _add(
    response: dns.message.Message, name: dns.name.Name, rdtype: str, records: list[str], ttl: int
) -> None:
    """`CNAME other.name.` first in a list makes the rest the other name's."""
    for record in records:
        if record.startswith("CNAME ") and rdtype != "CNAME":
            target = record.removeprefix("CNAME ")
            response.answer.append(dns.rrset.from_text(name, ttl, "IN", "CNAME", target))
            name = dns.name.from_text(target)
    own = [record for record in records if not record.startswith("CNAME ") or rdtype == "CNAME"]
    if own:
        response.answer.append(dns.rrset.from_text_list(name, ttl, "IN", rdtype, own))


def _key(name: str, rdtype: str) -> tuple[str, str]:
    return dns.name.from_text(name).to_text().lower(), rdtype


def _bound(address: str) -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP on the same free port."""
    for _ in range(50):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, 0))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            tcp.bind((address, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen(16)
        return udp, tcp
    raise OSError("no port is free for both UDP and TCP")
