"""One exchange with a service: the request, the redirects that it answers with, and its answer.

On the thread that makes the call, within whose line every wait ends.
"""

from __future__ import annotations

from typing import Any

import httpcore
import httpx

from control.admin.inert import one_line
from control.outbound.retryafter import retry_after_s
from jobs.downstream import answers, redirects, statuses
from jobs.downstream.faults import DeniedError, FailedCall, OutOfTimeError, RefusedCall
from jobs.downstream.preparing import Prepared
from jobs.downstream.secrecy import without
from jobs.types.spec import DownstreamSpec
from pipeline.delivery.retry import RETRY_AFTER_CAP_S

_OWN = (
    (b"User-Agent", b"Collector"),
    (b"Accept", b"application/json, */*;q=0.5"),
    (b"Accept-Encoding", b"identity"),
)


def exchanged(
    transport: httpx.BaseTransport, spec: DownstreamSpec, sending: Prepared, *, now_s: float
) -> tuple[int, Any]:
    """The status and value of an answer that was expected.

    Raises FailedCall and RefusedCall for any other, DeniedError, and as the wire does.
    """
    status = 0
    for _ in range(redirects.MAX_REDIRECTS + 1):
        try:
            response = transport.handle_request(_request(sending))
        except DeniedError as error:
            if not status:
                raise
            words = f"redirects to {one_line(str(sending.url), limit=200)}: {error}"
            raise RefusedCall(words, status=status) from None
        try:
            status = response.status_code
            if status in sending.expected:
                return status, _value(response, spec, sending)
            if not (spec.follow_redirects and redirects.is_redirect(response)):
                raise _unexpected(response, now_s)
            sending = redirects.next_hop(sending, response)
        finally:
            response.close()
    raise RefusedCall(
        f"answers with more than {redirects.MAX_REDIRECTS} redirects, the last to"
        f" {one_line(str(sending.url), limit=200)}",
        status=status,
    )


def _request(sending: Prepared) -> httpx.Request:
    headers = [
        (name.encode("ascii"), value.strip().encode())
        for name, value in {**sending.headers, **sending.secrets}.items()
    ]
    named = {name.lower() for name, _ in headers}
    headers += [(name, value) for name, value in _OWN if name.lower() not in named]
    return httpx.Request(sending.method, sending.url, headers=headers, content=sending.body)


def _value(response: httpx.Response, spec: DownstreamSpec, sending: Prepared) -> Any:
    status = response.status_code
    try:
        body = answers.read(response, limit=spec.max_response_bytes)
        return without(answers.value(response, body), sending.hidden)
    except answers.TooLargeError:
        raise RefusedCall(
            f"answered {status} with more than {spec.max_response_bytes} bytes; let it answer less,"
            " or raise the limit of the downstream service",
            status=status,
        ) from None
    except answers.GarbageError as error:
        raise FailedCall(f"answered {status} with a body {error}", status=status) from None


def _unexpected(response: httpx.Response, now_s: float) -> Exception:
    status = response.status_code
    if status in redirects.REDIRECTS:
        to = one_line(response.headers.get("location", ""), limit=200)
        return RefusedCall(
            f"answered {status}, a redirect to {to}; give the new address, or let the downstream"
            " service follow redirects",
            status=status,
        )
    try:
        said = answers.beginning(response)
    except (httpcore.NetworkError, httpcore.ProtocolError, OutOfTimeError):
        said = ""  # the status has been said; the text is only for people
    words = f"answered {status}: {said}" if said else f"answered {status}"
    if not statuses.is_later(status):
        return RefusedCall(words, status=status)
    asked = retry_after_s(
        response.headers.get("retry-after", "")[:100],
        now_s=now_s,
        date=response.headers.get("date", "")[:100],
    )
    asked = None if asked is None else min(asked, RETRY_AFTER_CAP_S)
    return FailedCall(words, status=status, retry_after_s=asked)
