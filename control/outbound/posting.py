"""One POST over HTTP: a bounded answer, one deadline for all of it, no redirects, no reuse.

What the status means is one rule for every channel: 2xx is sent; 408, 425, 429 and 5xx may work
later; 400, 413, 415 and 422 are about this very message, and for ever.  Any other (a redirect, no
such page, no permission) is what a proxy says while the receiver behind it is being replaced: it
is doubted for some minutes.  Runs on the thread of the channel.
"""

from __future__ import annotations

import ssl

import httpcore

from control.admin.inert import one_line
from control.outbound.connecting import Backend, Outbound
from control.outbound.retryafter import retry_after_s
from control.outbound.tls import client_context
from control.outbox.senders import DoubtfulError
from pipeline.errors import PermanentError, RetryableError

ANSWER_CHARS = 300
_ANSWER_BYTES = 2_000
_LATER = frozenset({408, 425, 429})
_NEVER = frozenset({400, 413, 415, 422})


def post(
    url: str, *, body: bytes, headers: dict[str, str], outbound: Outbound, verify: bool, now_s: int
) -> str:
    """Post it, and answer the status with the beginning of what was said."""
    pool = httpcore.ConnectionPool(
        ssl_context=client_context(verify), network_backend=Backend(outbound), max_connections=1
    )
    try:
        with (
            pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
        ):
            status, said = response.status, _beginning(response)
            retry_after = _header(response, b"retry-after")
            date = _header(response, b"date")
            location = _header(response, b"location")
    except (httpcore.TimeoutException, TimeoutError):
        raise RetryableError("no full answer in time") from None
    except ssl.SSLCertVerificationError as error:
        raise RetryableError(f"its certificate is not trusted: {error.verify_message}") from None
    except (
        httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError,
    ) as error:  # fmt: skip
        words = one_line(str(error), limit=ANSWER_CHARS) or type(error).__name__
        raise RetryableError(f"the connection failed: {words}") from None
    answer = f"{status} {said}".strip()
    if 200 <= status < 300:
        return answer
    if status in _NEVER:
        raise PermanentError(f"answered {answer}")
    asked = retry_after_s(retry_after, now_s=now_s, date=date)
    if status in _LATER or status >= 500:
        raise RetryableError(f"answered {answer}", retry_after_s=asked)
    if 300 <= status < 400:
        to = one_line(location, limit=200)
        answer = f"{status}, a redirect to {to}; give the new address"
    raise DoubtfulError(f"answered {answer}", retry_after_s=asked)


def _beginning(response: httpcore.Response) -> str:
    read = b""
    try:
        for chunk in response.iter_stream():
            read += chunk
            if len(read) >= _ANSWER_BYTES:
                break
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
        pass  # the status has been said; the text is only for people
    except RetryableError:
        pass  # as above: the deadline came while it was read
    return one_line(read[:_ANSWER_BYTES].decode("utf-8", "replace"), limit=ANSWER_CHARS)


def _header(response: httpcore.Response, name: bytes) -> str:
    for key, value in response.headers:
        if key.lower() == name:
            return bytes(value[:500]).decode("latin-1")
    return ""
