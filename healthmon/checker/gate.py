"""The connectivity gate: whether it is the targets that fail, or this checker that has no network.

When many targets of several hosts get no answer at once, the witnesses are asked: those that the
operator named, else this machine's own nameservers or gateway.  While that is found out, and for as
long as no witness answers, failures are void instead of being the targets'.

A witness that nobody named is believed by its silence only if it has answered before: it is asked
once while targets answer.  Before that, its silence counts where no target answers either.

Targets beyond the local network are also counted by themselves, so that those on it, which go on
answering when the way out is gone, do not hide that.

`Picture` is pure; `NetworkGate` runs on the checker's event loop alone, so that there are no locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from healthmon.checker.routes import has_default_route
from healthmon.checker.witnesses import (
    Resolver,
    Witness,
    default_witnesses,
    is_beyond,
    is_loopback,
    is_near,
    named,
    who_answers,
)
from healthmon.probes.kind import FAILED, VOID, Result
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

WINDOW_S = 60.0
LEAST_TARGETS = 5
LEAST_HOSTS = 2
LEAST_SHARE = 0.5
MOST_TARGETS = 20_000
# What was found out of the network is believed for so long.
VERDICT_S = 10.0
ASK_AGAIN_S = 2.0
# Whether witnesses that nobody named answer at all is tried so often, until one has.
TRY_DEFAULTS_EVERY_S = 300.0

LOOKING = "many targets stopped answering at once, and it is being found out why"


class Spec(Protocol):
    """What the gate reads of a target."""

    @property
    def id(self) -> int: ...

    @property
    def host(self) -> str: ...


class Tools(Protocol):
    @property
    def resolver(self) -> Resolver: ...


@dataclass(frozen=True, slots=True)
class _Seen:
    at_s: float
    host: str
    silent: bool


class Picture:
    """The last result of each target that is not on this machine, and how many got no answer."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        self._silent_hosts: Counter[str] = Counter()
        self.silent = 0

    @property
    def targets(self) -> int:
        return len(self._seen)

    def note(self, target_id: int, host: str, *, silent: bool, now_s: float) -> None:
        self.forget(target_id)
        if len(self._seen) >= MOST_TARGETS:
            self.forget(next(iter(self._seen)))
        self._seen[target_id] = _Seen(now_s, host, silent)
        if silent:
            self.silent += 1
            self._silent_hosts[host] += 1

    def forget_old(self, now_s: float) -> None:
        while self._seen:
            target_id, oldest = next(iter(self._seen.items()))
            if now_s - oldest.at_s <= WINDOW_S:
                return
            self.forget(target_id)

    @property
    def suspicious(self) -> bool:
        """Whether so much fails at once that it may be this machine."""
        return (
            self.silent >= LEAST_TARGETS
            and self.silent >= LEAST_SHARE * self.targets
            and len(self._silent_hosts) >= LEAST_HOSTS
        )

    @property
    def nobody_answers(self) -> bool:
        return self.silent == self.targets

    def forget(self, target_id: int) -> None:
        seen = self._seen.pop(target_id, None)
        if seen is None or not seen.silent:
            return
        self.silent -= 1
        self._silent_hosts[seen.host] -= 1
        if not self._silent_hosts[seen.host]:
            del self._silent_hosts[seen.host]


class NetworkGate:
    """Told of every result by `note`; `reason` says why a failure does not count, "" if it does."""

    def __init__(
        self,
        *,
        witnesses: Iterable[str],
        tools: Tools,
        clock: Clock | None = None,
        has_route: Callable[[], bool] | None = None,
        defaults: Callable[[], Sequence[Witness]] = default_witnesses,
    ) -> None:
        self._named: list[Witness] = [named(text) for text in witnesses]
        self._defaults = defaults
        self._tools = tools
        self._clock = clock or SystemClock()
        self._has_route = has_route or has_default_route
        self._picture = Picture()
        self._far = Picture()
        self._asking: asyncio.Task[None] | None = None
        self._gone = ""
        self._asked_at = self._tried_at = float("-inf")
        # Those that nobody named and that have answered once.
        self._proven: set[str] = set()
        self.times_gone = 0

    def witnesses(self) -> Sequence[Witness]:
        """Who is asked; from any thread."""
        return self._named or self._defaults()

    def note(self, spec: Spec, result: Result) -> None:
        """Take in what a probe found, before it is judged."""
        if result.outcome == VOID or not is_beyond(spec.host):
            return
        if result.address and is_loopback(result.address):
            return
        # Whoever was connected to has been reached, whatever it then said.
        silent = result.outcome == FAILED and result.connect_ms < 0 and not result.code
        now_s = self._clock.monotonic()
        self._picture.note(spec.id, spec.host, silent=silent, now_s=now_s)
        if _is_near(spec, result):
            self._far.forget(spec.id)
        else:
            self._far.note(spec.id, spec.host, silent=silent, now_s=now_s)

    def reason(self, spec: Spec, result: Result) -> str:
        """Why this failure cannot be held against its target."""
        if result.connect_ms >= 0 or result.code or not is_beyond(spec.host):
            return ""
        if not (self._picture.suspicious or (self._far.suspicious and not _is_near(spec, result))):
            return ""
        self._look()
        if self._known():
            return self._gone
        return LOOKING if self._asking is not None else ""

    def beat(self) -> None:
        """Each second: forget what is old, and look again while the network is gone."""
        now_s = self._clock.monotonic()
        self._picture.forget_old(now_s)
        self._far.forget_old(now_s)
        if not self._suspicious:
            self._say("")
            self._try_defaults(now_s)
        elif self._gone:
            self._look()

    @property
    def _suspicious(self) -> bool:
        return self._picture.suspicious or self._far.suspicious

    def _known(self) -> bool:
        return self._clock.monotonic() - self._asked_at <= VERDICT_S

    def _look(self) -> None:
        """Ask the witnesses, unless that is being done or was done a moment ago."""
        if self._asking is not None:
            return
        if self._clock.monotonic() - self._asked_at < ASK_AGAIN_S:
            return
        self._begin(self._ask())

    def _try_defaults(self, now_s: float) -> None:
        """While there is a network for sure, see who of those that nobody named answers."""
        if self._named or self._proven or self._asking is not None or self._picture.nobody_answers:
            return
        if now_s - self._tried_at >= TRY_DEFAULTS_EVERY_S:
            self._tried_at = now_s
            self._begin(self._prove())

    def _begin(self, asking: Coroutine[Any, Any, None]) -> None:
        self._asking = asyncio.get_running_loop().create_task(asking)

    async def _prove(self) -> None:
        try:
            await self._who_answers(self._defaults())
        except Exception:
            logger.exception("this machine's nameservers could not be asked")
        finally:
            self._asking = None

    async def _ask(self) -> None:
        try:
            gone = await self._why_gone()
            self._asked_at = self._clock.monotonic()
            self._say(gone)
        except Exception:
            # Not knowing means that the targets are believed.
            logger.exception("the network's witnesses could not be asked")
            self._asked_at = self._clock.monotonic()
            self._say("")
        finally:
            self._asking = None

    async def _why_gone(self) -> str:
        witnesses = self.witnesses()
        nobody = self._picture.nobody_answers
        if not witnesses:
            if nobody and not self._has_route():
                return "this checker has no network: no target answers and there is no route"
            return ""
        if await self._who_answers(witnesses):
            return ""
        if self._named:
            return "this checker has no network: none of its witnesses answers"
        silent = ", ".join(one.name for one in witnesses)
        if not self._proven.isdisjoint(one.name for one in witnesses):
            return f"this checker has no network: {silent} does not answer either"
        return f"this checker has no network: no target answers, nor {silent}" if nobody else ""

    async def _who_answers(self, witnesses: Sequence[Witness]) -> str:
        name = await who_answers(witnesses, self._tools.resolver)
        if name and not self._named:
            self._proven.add(name)
        return name

    def _say(self, gone: str) -> None:
        if bool(gone) != bool(self._gone):
            figures = {"silent": self._picture.silent, "targets": self._picture.targets}
            if gone:
                self.times_gone += 1
                logger.error("%s; failures do not count meanwhile", gone, extra=figures)
            else:
                logger.warning("this checker's network is there again", extra=figures)
        self._gone = gone


def _is_near(spec: Spec, result: Result) -> bool:
    """Whether it is on the local network, as far as can be told."""
    return is_near(result.address or spec.host)
