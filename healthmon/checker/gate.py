"""The connectivity gate: whether it is the targets that fail, or this checker that has no network.

When many targets of several hosts get no answer at once, the witnesses that the operator named are
asked, or without any, whether this machine has a way out at all.  While that is found out, and for
as long as no witness answers, failures are void instead of being the targets'.

`Picture` is pure; `NetworkGate` runs on the checker's event loop alone, so that there are no locks.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

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
WITNESS_TIMEOUT_S = 2.0
# Where a witness is named without a port: a refusal is an answer, too.
WITNESS_PORTS = (443, 53, 80)
ROUTES = (Path("/proc/net/route"), Path("/proc/net/ipv6_route"))
_ANSWERS = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})

LOOKING = "many targets stopped answering at once, and it is being found out why"


class Spec(Protocol):
    """What the gate reads of a target."""

    @property
    def id(self) -> int: ...

    @property
    def host(self) -> str: ...


class Resolver(Protocol):
    async def resolve(self, host: str, *, family: int = 0) -> list[str]: ...


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
        self._drop(target_id)
        if len(self._seen) >= MOST_TARGETS:
            self._drop(next(iter(self._seen)))
        self._seen[target_id] = _Seen(now_s, host, silent)
        if silent:
            self.silent += 1
            self._silent_hosts[host] += 1

    def forget_old(self, now_s: float) -> None:
        while self._seen:
            target_id, oldest = next(iter(self._seen.items()))
            if now_s - oldest.at_s <= WINDOW_S:
                return
            self._drop(target_id)

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

    def _drop(self, target_id: int) -> None:
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
    ) -> None:
        self._witnesses = [_place(text) for text in witnesses]
        self._tools = tools
        self._clock = clock or SystemClock()
        self._has_route = has_route or has_default_route
        self._picture = Picture()
        self._asking: asyncio.Task[None] | None = None
        self._gone = ""
        self._asked_at = float("-inf")
        self.times_gone = 0

    def note(self, spec: Spec, result: Result) -> None:
        """Take in what a probe found, before it is judged."""
        if result.outcome == VOID or not spec.host or is_loopback(spec.host):
            return
        if result.address and is_loopback(result.address):
            return
        # Whoever was connected to has been reached, whatever it then said.
        silent = result.outcome == FAILED and result.connect_ms < 0 and not result.code
        now_s = self._clock.monotonic()
        self._picture.note(spec.id, spec.host, silent=silent, now_s=now_s)

    def reason(self, spec: Spec, result: Result) -> str:
        """Why this failure cannot be held against its target."""
        if result.connect_ms >= 0 or result.code or not spec.host or is_loopback(spec.host):
            return ""
        if not self._picture.suspicious:
            return ""
        self._look()
        if self._known():
            return self._gone
        return LOOKING if self._asking is not None else ""

    def beat(self) -> None:
        """Each second: forget what is old, and look again while the network is gone."""
        self._picture.forget_old(self._clock.monotonic())
        if not self._picture.suspicious:
            self._say("")
        elif self._gone:
            self._look()

    def _known(self) -> bool:
        return self._clock.monotonic() - self._asked_at <= VERDICT_S

    def _look(self) -> None:
        """Ask the witnesses, unless that is being done or was done a moment ago."""
        if self._asking is not None:
            return
        if self._clock.monotonic() - self._asked_at < ASK_AGAIN_S:
            return
        self._asking = asyncio.get_running_loop().create_task(self._ask())

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
        if not self._witnesses:
            if self._picture.nobody_answers and not self._has_route():
                return "this checker has no network: no target answers and there is no route"
            return ""
        answers = [asyncio.ensure_future(self._answers(*one)) for one in self._witnesses]
        try:
            for answer in asyncio.as_completed(answers):
                if await answer:
                    return ""
        finally:
            for one in answers:
                one.cancel()
            await asyncio.gather(*answers, return_exceptions=True)
        return "this checker has no network: none of its witnesses answers"

    async def _answers(self, host: str, ports: tuple[int, ...]) -> bool:
        """Whether anything comes back from there, be it a refusal."""
        try:
            async with asyncio.timeout(WITNESS_TIMEOUT_S):
                addresses = await self._tools.resolver.resolve(host)
                tries = [_knock(address, port) for address in addresses[:2] for port in ports]
                return any(await asyncio.gather(*tries))
        except Exception:
            return False

    def _say(self, gone: str) -> None:
        if bool(gone) != bool(self._gone):
            figures = {"silent": self._picture.silent, "targets": self._picture.targets}
            if gone:
                self.times_gone += 1
                logger.error("%s; failures do not count meanwhile", gone, extra=figures)
            else:
                logger.warning("this checker's network is there again", extra=figures)
        self._gone = gone


async def _knock(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        try:
            async with asyncio.timeout(WITNESS_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(knocking, (address, port))
        except TimeoutError:
            return False
        except OSError as error:
            return error.errno in _ANSWERS
        return True


def _place(text: str) -> tuple[str, tuple[int, ...]]:
    """`host`, `host:port`, an IPv6 address, or one in brackets with a port."""
    host, _, port = text.strip().rpartition(":")
    if host and port.isdecimal() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), (int(port),)
    return text.strip().strip("[]"), WITNESS_PORTS


@lru_cache(maxsize=4096)
def is_loopback(host: str) -> bool:
    """Whether this names this machine itself; its network says nothing of the world's."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def has_default_route(files: Iterable[Path] = ROUTES) -> bool:
    """Whether this machine knows a way to the world; True where it cannot be told."""
    readable = False
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        readable = True
        if any(_is_default(line.split()) for line in lines):
            return True
    return not readable


def _is_default(words: list[str]) -> bool:
    if len(words) >= 10 and len(words[0]) == 32:  # IPv6: destination and its length first
        return set(words[0]) == {"0"} and words[1] == "00" and words[9] != "lo"
    return len(words) >= 8 and words[1] == "00000000" and words[7] == "00000000"
