"""What a probe is: one function in one file, with typed options, found by name or dotted path.

A kind's file ends with `KIND = ProbeKind(...)`.  The checker calls `probe` on its event loop, many
at once, each under a total deadline: it must never block, and must leave nothing open when it is
cancelled.  It returns a Result, for every failure of the target too; what it raises is taken for
a failure, in the exception's words.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from sinks.options import SinkOptions

if TYPE_CHECKING:
    from healthmon.probes.tools import Tools

# `void`: the checker could not judge (it was late, or had no network); says nothing of the target.
Outcome: TypeAlias = Literal["ok", "degraded", "failed", "void"]
OK, DEGRADED, FAILED, VOID = "ok", "degraded", "failed", "void"

ERROR_CHARS = 500


class ProbeOptions(SinkOptions, frozen=True, kw_only=True):
    """Base of the kinds' options: msgspec structs, each field with a description and limits."""


class Result(msgspec.Struct, kw_only=True, gc=False):
    """What one probe found.  Milliseconds; a phase that did not happen is negative.

    `error` is one sentence without secrets, at most ERROR_CHARS long; `code` what the protocol
    answers with (an HTTP status), 0 for none; `address` that connected to.
    """

    outcome: str = OK
    error: str = ""
    code: int = 0
    address: str = ""
    dns_ms: float = -1.0
    connect_ms: float = -1.0
    tls_ms: float = -1.0
    first_byte_ms: float = -1.0
    total_ms: float = 0.0
    cert_expires_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to probe: a target's address and its decoded options, secrets in plain."""

    address: str
    options: ProbeOptions
    timeout_s: float
    target_id: int = 0


Probe: TypeAlias = "Callable[[Request, Tools], Awaitable[Result]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeKind:
    """One protocol.  `address_problem` says what is wrong with an address ("" when nothing is).

    `host` is what the limits per host count by.  A kind without a `probe` is passive: its targets
    are judged by what comes in.
    """

    name: str
    label: str
    description: str
    Options: type[ProbeOptions]
    address_label: str
    address_example: str
    address_problem: Callable[[str], str]
    host: Callable[[str], str]
    probe: Probe | None
