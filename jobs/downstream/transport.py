"""The httpx transport of a downstream service: a bounded pool of kept connections.

Shared by all threads that call the service.  A request that met a kept connection which the other
end had closed, and of which no byte was sent, is sent over another one.  Used without an
httpx.Client, which would keep cookies from one job's call for another's.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpcore
import httpx

from jobs.downstream.faults import NotSentError
from jobs.downstream.line import Lines

# Shorter than what common servers keep them for, so that they are rarely closed under a request.
KEEP_ALIVE_S = 4.0
MAX_KEPT = 16


class Transport(httpx.BaseTransport):
    def __init__(
        self,
        *,
        lines: Lines,
        backend: httpcore.NetworkBackend,
        tls: ssl.SSLContext,
        max_connections: int,
    ) -> None:
        self._lines = lines
        self._tries = max_connections + 1
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=max_connections,
            max_keepalive_connections=min(MAX_KEPT, max_connections),
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=backend,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        line = self._lines.current
        line.sent = False
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": {"pool": line.left_s()}},
        )
        for left in range(self._tries, -1, -1):
            try:
                answered = self._pool.handle_request(asked)
                break
            except NotSentError:
                if not left:
                    raise
        return httpx.Response(
            status_code=answered.status,
            headers=answered.headers,
            stream=_Body(answered),
            extensions=answered.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answered: httpcore.Response) -> None:
        self._answered = answered

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answered.iter_stream()

    def close(self) -> None:
        self._answered.close()
