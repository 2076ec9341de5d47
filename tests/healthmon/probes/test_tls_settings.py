"""TLS settings that are shared, and hosts and ports as they are written."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from healthmon.probes.net import tls
from healthmon.probes.net.dial import dial
from healthmon.probes.net.names import HostError, host_problem, split
from healthmon.probes.net.tls import ContextError, Contexts, handshake_text
from tests.healthmon.probes import stand
from tests.healthmon.probes.listeners.authority import Authority, authority
from tests.healthmon.probes.listeners.tcp import Listener


def test_one_context_for_each_setting():
    contexts = Contexts()
    ca = authority().ca_file
    assert contexts.get(True) is contexts.get(True)
    assert contexts.get(True, ca) is contexts.get(True, ca)
    assert len({id(contexts.get(*s)) for s in ((True,), (False,), (True, ca))}) == 3
    assert contexts.get(False).verify_mode == ssl.CERT_NONE
    assert contexts.get(True).check_hostname


def test_a_changed_file_of_authorities_is_read_again(tmp_path):
    contexts = Contexts()
    first, second = Authority(tmp_path, name="one"), Authority(tmp_path, name="the other")
    file = tmp_path / "ca.pem"
    file.write_bytes(Path(first.ca_file).read_bytes())
    before = contexts.get(True, str(file))
    file.write_bytes(Path(second.ca_file).read_bytes())
    after = contexts.get(True, str(file))
    assert before is not after
    assert before.get_ca_certs() != after.get_ca_certs()


def test_files_that_are_no_authorities_are_named(tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    for path in (str(wrong), str(tmp_path), str(tmp_path / "missing.pem")):
        with pytest.raises(ContextError, match=path):
            Contexts().get(True, path)


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(tls, "MAX_CONTEXTS", 3)
    contexts = Contexts()
    for number in range(10):
        contexts.get(False, alpn=(f"x{number}",))
        assert len(contexts._contexts) <= 3


def test_each_probe_is_a_full_handshake():
    reused = []

    def notes(sock, listener):
        reused.append(sock.session_reused)
        sock.sendall(b"x")
        while sock.recv(100):
            pass

    with Listener(notes, tls=authority().server_context()) as listener:

        async def run():
            from healthmon.probes.net.exchange import Exchange

            for _ in range(3):
                connection = await dial(
                    lambda: Exchange(max_bytes=10, clock=asyncio.get_running_loop().time),
                    host="localhost",
                    port=listener.port,
                    tools=stand.tools(),
                    tls=stand.CONTEXTS.get(True, authority().ca_file),
                )
                await connection.protocol.until(bool)
                connection.transport.abort()

        stand.on_loop(run)
    assert reused == [False] * 3


def test_what_is_no_certificate_is_not_read():
    assert Contexts().certificate(b"\x30\x82garbage") is None
    assert Contexts().expires_us(None) == 0


def test_what_openssl_says_is_put_in_words():
    assert handshake_text(ssl.SSLError(1, "[SSL: SOME_NEW_REASON] x")) == (
        "the TLS handshake failed: [ssl: some new reason] x"
    )
    assert handshake_text(ConnectionResetError(104, "x")) == (
        "the connection was reset during the TLS handshake"
    )


@pytest.mark.parametrize(
    ("text", "default", "found"),
    [
        ("host:80", 0, ("host", 80)),
        (" Host.Example:80 ", 0, ("Host.Example", 80)),
        ("[::1]:443", 0, ("::1", 443)),
        ("::1", 443, ("::1", 443)),
        ("[::1]", 443, ("::1", 443)),
        ("192.0.2.1", 53, ("192.0.2.1", 53)),
    ],
)
def test_hosts_with_ports(text, default, found):
    assert split(text, default_port=default) == found


@pytest.mark.parametrize(
    "text", ["", ":80", "h:", "h:-1", "h:65536", "h:8²", "[::1", "[::1]80", "::1", "u@h:1", "h:1/x"]
)
def test_what_is_no_host_with_a_port(text):
    with pytest.raises(HostError):
        split(text)


def test_hosts():
    for good in (
        "a",
        "a.b.",
        "_sip._tcp.example.org",
        "xn--a",
        "bücher.example",
        "::1",
        "1.2.3.4",
        "faß.example",
    ):
        assert host_problem(good) == "", good
    for bad in ("", ".", "a..b", "-a", "a-", "1.2.3", "0x7f.1", "a/b", "a" * 64, "a\u2028b"):
        assert host_problem(bad), bad
