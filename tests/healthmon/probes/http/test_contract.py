"""The HTTP and WebSocket probes keep the contract of every kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from healthmon.probes.kind import FAILED
from tests.healthmon.probes.contract import Case, TcpFaults
from tests.healthmon.probes.http.scripted import answer
from tests.healthmon.probes.http.wsserver import upgrading
from tests.healthmon.probes.listeners.authority import authority
from tests.healthmon.probes.listeners.tcp import Listener, answers

SECRET = "s3cret-value-never-shown"


class _Web(TcpFaults):
    def test_shows_no_secret(self) -> None:
        for options in (
            {"username": "jo", "password": SECRET},
            {"bearer_token": SECRET},
            {"secret_headers": f"X-Key: {SECRET}"},
        ):
            with self.failing() as case:
                result = self.probed(case, **options)
                assert result.outcome == FAILED
                assert SECRET not in repr(result)


class TestHttp(_Web):
    kind = "http"
    bad_options = ({"expected_status": "x"}, {"body_regex": "("}, {"json_path": "x"})
    bad_addresses = ("", "example.com", "ftp://example.com", "http://jo:pw@example.com/")
    options: ClassVar[dict[str, Any]] = {"body_contains": ["well"]}

    def at(self, where: str) -> str:
        return f"http://{where}/health"

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Listener(answers(answer(b"all is well"), after=b"\r\n\r\n")) as listener:
            yield Case(address=self.at(listener.where), options=self.options)


class TestHttps(TestHttp):
    def at(self, where: str) -> str:
        return f"https://{where}/health"

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        context = authority().server_context()
        reply = answers(answer(b"all is well"), after=b"\r\n\r\n")
        with Listener(reply, tls=context) as listener:
            options = self.options | {"ca_file": authority().ca_file}
            yield Case(address=self.at(listener.where), options=options)


class TestWebSocket(_Web):
    kind = "websocket"
    bad_options = ({"subprotocol": "a b"}, {"headers": {"Upgrade": "x"}}, {"send": 7})
    bad_addresses = ("", "example.com", "http://example.com", "ws://jo:pw@example.com/")
    options: ClassVar[dict[str, Any]] = {"send": "ping", "expect": "pong"}

    def at(self, where: str) -> str:
        return f"ws://{where}/socket"

    @contextlib.contextmanager
    def good(self) -> Iterator[Case]:
        with Listener(upgrading) as listener:
            yield Case(address=self.at(listener.where), options=self.options)
