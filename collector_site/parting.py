"""An answer says when its connection ends with it, so that no client sends its next request there.

Called on the request threads.  A body that was not read is thrown away afterwards, without a
thread, where its end can be told; where it cannot, or is too far away, the connection is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.http.body import ChunkedReader, LengthReader

# Enough for a refused batch of any usual size; beyond it the connection is not worth keeping.
MAX_DRAIN_BYTES = 64 * 1024 * 1024

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def saying(application: Application) -> Application:
    """`application`, whose answers carry `Connection: close` where the server will close."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if is_left(environ.get("wsgi.input")):
                start_response.__self__.force_close()  # type: ignore[attr-defined]
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return call


def is_left(body: Any) -> bool:
    """Whether more of this body may come than is worth waiting for."""
    reader = getattr(body, "reader", None)
    if isinstance(reader, ChunkedReader):
        return reader.parser is not None
    if isinstance(reader, LengthReader):
        return bool(reader.length > MAX_DRAIN_BYTES)
    return False
