"""Running one probe: under its total deadline on a loop, or by itself in the calling thread.

`run_probe` is what the checker and a trial have in common.  `try_probe` makes an event loop of its
own in the calling thread, for forms and commands; the policy and the TLS settings are the
process's, made once (`_lock`), the resolver is the trial's own: somebody who tries a name wants to
know what it is now.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import msgspec

from control.outbound.policy import PolicyError
from healthmon.probes.kind import (
    ERROR_CHARS,
    FAILED,
    ProbeKind,
    ProbeOptions,
    Request,
    Result,
)
from healthmon.probes.net.dial import deadline_text
from healthmon.probes.net.resolver import Resolver
from healthmon.probes.registry import KindError, kind_of
from healthmon.probes.tools import Tools, tools_from_settings
from sinks.options import OptionsError, Secret, decode_options

HIDDEN = "…"


async def run_probe(kind: ProbeKind, request: Request, tools: Tools) -> Result:
    """The result of one probe, whatever it does; only the caller's own cancellation is raised."""
    probe = kind.probe
    if probe is None:
        return Result(outcome=FAILED, error=f"{kind.label} targets are not probed: they report")
    clock = tools.monotonic
    began = clock()
    try:
        async with asyncio.timeout(request.timeout_s):
            result = await probe(request, tools)
    except TimeoutError as error:
        result = Result(outcome=FAILED, error=deadline_text(error, request.timeout_s))
    except Exception as error:  # a kind may fail in any way; only this probe is affected
        result = Result(outcome=FAILED, error=f"{type(error).__name__}: {error}")
    if result.total_ms <= 0:
        result.total_ms = (clock() - began) * 1000
    if result.error:
        result.error = presentable(result.error, request.options)
    result.address = _storable(result.address)
    return result


def presentable(text: str, options: ProbeOptions) -> str:
    """An error as it may be shown and stored: one line, bounded, the options' secrets taken out."""
    for value in msgspec.structs.asdict(options).values():
        for secret in value.values() if isinstance(value, dict) else (value,):
            if isinstance(secret, Secret) and secret:
                text = text.replace(secret.reveal(), HIDDEN)
    return _storable(" ".join(text[: ERROR_CHARS * 4].split())[:ERROR_CHARS])


def _storable(text: str) -> str:
    """Without what no database or log can hold: half surrogate pairs, and zero bytes."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def try_probe(
    kind: ProbeKind | str, address: str, options: dict[str, Any], timeout_s: float
) -> Result:
    """One probe, now, in this thread.  What is wrong with the request is a failed result too."""
    try:
        chosen = kind_of(kind) if isinstance(kind, str) else kind
        wrong = chosen.address_problem(address)
        if wrong:
            return Result(outcome=FAILED, error=wrong[:ERROR_CHARS])
        decoded = decode_options(chosen.Options, options)
        shared = _shared_tools()
    except (KindError, OptionsError, PolicyError) as error:
        return Result(outcome=FAILED, error=str(error)[:ERROR_CHARS])
    request = Request(address=address, options=decoded, timeout_s=timeout_s)
    with asyncio.Runner() as runner:
        return runner.run(_try(chosen, request, shared))


async def _try(kind: ProbeKind, request: Request, shared: Tools) -> Result:
    tools = dataclasses.replace(shared, resolver=Resolver())
    try:
        return await run_probe(kind, request, tools)
    finally:
        await tools.resolver.aclose()


def _shared_tools() -> Tools:
    global _tools
    with _lock:
        if _tools is None:
            _tools = tools_from_settings()
        return _tools


def forget_tools() -> None:
    """Read the settings again at the next trial; for tests that change them."""
    global _tools
    with _lock:
        _tools = None


_lock = threading.Lock()
_tools: Tools | None = None
