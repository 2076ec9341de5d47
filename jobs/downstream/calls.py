"""Calling downstream services: the one door through which jobs reach the network.

A call is prepared, let in by its service's guard, made, and its end told to the guard:

    Answer          the expected status, and a body that can be stored
    FailedCall      it may work later: 5xx, 408, 425, 429, no connection, no answer in time, garbage
    RefusedCall     it never will: another status, too large an answer, an address that is denied
    Delayed         it was not made; the guard, or the configuration, says when to come back
    Interrupted     the run was told to end, or its deadline came

Any number of threads call; each makes its calls itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore

from control.outbound.policy import AddressPolicy
from jobs.downstream.exchange import exchanged
from jobs.downstream.faults import (
    CutError,
    Delayed,
    DeniedError,
    FailedCall,
    NotSentError,
    OutOfTimeError,
    RefusedCall,
)
from jobs.downstream.guard import Entry, Guard
from jobs.downstream.line import Line, Lines
from jobs.downstream.names import Names
from jobs.downstream.preparing import CallRequest, Prepared, prepared
from jobs.downstream.services import Services
from jobs.downstream.wire import cause
from jobs.execution.interruption import DEADLINE, Interrupted, Interruption
from jobs.types.spec import DownstreamSpec
from pipeline.runtime.clock import Clock
from sinks.secrets import redact

__all__ = ["Answer", "CallRequest", "Delayed", "Downstreams", "FailedCall", "RefusedCall"]

_BROKEN_OFF = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    NotSentError,
    CutError,
    OSError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the service answered: a JSON value, text, or None."""

    status: int
    body: Any
    duration_s: float


class Downstreams:
    """Of `policy`, private addresses are no problem for the host that a base URL names.

    `living_runners` share the limits of a service: which of them this is, from 0, and how many.
    `known` answers what is configured now, by id: limits and breakers follow it, and a service that
    is gone is forgotten.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        policy: AddressPolicy,
        living_runners: Callable[[], tuple[int, int]] = lambda: (0, 1),
        known: Callable[[], Mapping[int, DownstreamSpec]] | None = None,
        names: Names | None = None,
    ) -> None:
        self._clock = clock
        self._lines = Lines()
        self._services = Services(
            clock=clock,
            policy=policy,
            living_runners=living_runners,
            known=known,
            lines=self._lines,
            names=names or Names(),
        )

    def call(
        self,
        spec: DownstreamSpec,
        request: CallRequest,
        *,
        left_s: float,
        interruption: Interruption,
    ) -> Answer:
        """Make one call.  `left_s` is until the job's deadline.  Raises as the module says."""
        run_until = self._clock.monotonic() + left_s
        interruption.check()
        if left_s <= 0:
            raise Interrupted(DEADLINE)
        sending = prepared(spec, request)
        with self._services.using(spec) as (guard, transport):
            entry = guard.enter(
                left_s=left_s,
                interruption=interruption,
                asker=request.asker,
                timeout_s=sending.timeout_s,
            )
            began = self._clock.monotonic()
            line = Line(clock=self._clock, until=min(run_until, began + sending.timeout_s))
            try:
                with interruption.telling(line.cut), self._lines.on(line):
                    status, body = exchanged(
                        transport, spec, sending, now_s=self._clock.time_us() / 1e6
                    )
                guard.succeeded(entry)
            except Exception as error:
                is_last = line.until == run_until
                raise self._end(error, guard, entry, spec, sending, interruption, is_last) from None
            finally:
                guard.ignored(entry)  # unless it was told how the call ended
        return Answer(status=status, body=body, duration_s=self._clock.monotonic() - began)

    def _end(
        self,
        error: Exception,
        guard: Guard,
        entry: Entry,
        spec: DownstreamSpec,
        sending: Prepared,
        interruption: Interruption,
        is_last: bool,
    ) -> Exception:
        """What a call that did not succeed ends with, once its guard was told."""
        if isinstance(error, RefusedCall):
            if error.status is not None:
                guard.succeeded(entry)
            words = redact(f"{spec.name} {error}", sending.hidden)
            return RefusedCall(words, status=error.status)
        if isinstance(error, DeniedError):
            return RefusedCall(f"{spec.name} was not called: {error}")
        # A cut connection looks like any fault to whoever reads from it.
        if interruption.why:
            return Interrupted(interruption.why)
        if isinstance(error, OutOfTimeError) and is_last:
            return Interrupted(DEADLINE)
        status = retry_after_s = None
        if isinstance(error, FailedCall):
            status, retry_after_s, why = error.status, error.retry_after_s, str(error)
        elif isinstance(error, OutOfTimeError):
            why = f"gave no full answer within {sending.timeout_s:g} s"
        elif isinstance(error, httpcore.ConnectError):
            why = f"could not be reached: {error}"
        elif isinstance(error, _BROKEN_OFF):
            why = f"broke the call off: {cause(error)}"
        else:
            return error
        words = redact(f"{spec.name} {why}", sending.hidden)
        guard.failed(entry, words, retry_after_s=retry_after_s)
        return FailedCall(words, status=status, retry_after_s=retry_after_s)

    def states(self) -> list[dict[str, Any]]:
        """Each service that was called, by name, JSON-able: its breaker, calls, failures."""
        return self._services.states()

    def close(self) -> None:
        """Close the kept connections; harmless again."""
        self._services.close()
