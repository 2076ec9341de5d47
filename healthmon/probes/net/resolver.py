"""Names to addresses, on the event loop: `getaddrinfo` would share a handful of threads.

Addresses and the hosts file answer without a question.  Answers are kept for as long as their TTL
says, within bounds; that a name does not exist, or that no nameserver answered, is kept for a
moment.  Probes that ask for the same name share one question; a question outlives the probe that
asked it (its answer serves the next one), but not its own lifetime, and one that nobody waits for
any more is not begun.  Questions under way and answers kept are bounded.

IPv4 addresses are taken before IPv6 ones, which are asked for only where there is no IPv4: a probe
that turns to the other family by itself would hide that half of the users cannot connect.

One event loop alone; no locks.  The clock is injected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
import msgspec

from healthmon.probes.net.machine import Machine
from healthmon.probes.net.names import HostError, ascii_host, literal
from healthmon.probes.net.question import Reply, ask

MIN_TTL_S, MAX_TTL_S = 1.0, 3600.0
NEGATIVE_S = 5.0
FAILURE_S = 1.0

_KINDS = {0: ("A", "AAAA"), 4: ("A",), 6: ("AAAA",)}


class ResolveError(Exception):
    """A name has no address, or no nameserver said so; one sentence."""


class _Entry(msgspec.Struct, gc=False):
    """An answer: addresses, none when the name has none of this family, or what is wrong."""

    addresses: list[str]
    expires: float
    problem: str = ""


class _Question(msgspec.Struct):
    task: asyncio.Task[_Entry]
    waiting: int = 0


class Resolver:
    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        resolv_conf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
        port: int = 53,
        try_s: float = 2.0,
        lifetime_s: float = 6.0,
        concurrency: int = 64,
        max_entries: int = 20_000,
        max_questions: int = 10_000,
    ) -> None:
        self._clock = clock
        self._port = port
        self._try_s = try_s
        self._lifetime_s = lifetime_s
        self._max_entries = max_entries
        self._max_questions = max_questions
        self._machine = Machine(
            clock=clock,
            resolv_conf=resolv_conf,
            hosts=hosts,
            port=port,
            try_s=try_s,
            lifetime_s=lifetime_s,
        )
        self._permits = asyncio.Semaphore(concurrency)
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._literals: dict[str, list[str]] = {}
        self._questions: dict[tuple[str, str], _Question] = {}

    def known(self, host: str, *, family: int = 0) -> list[str] | None:
        """The addresses, when no question is needed; None when one is.  Raises ResolveError."""
        found = self._literals.get(host)
        if found is None:
            address = literal(host)
            if address is None:
                return self._kept(_name(host), family)
            found = [address]
            if len(self._literals) >= self._max_entries:
                self._literals.clear()
            self._literals[host] = found
        if family and not _of(family, found):
            raise ResolveError(f"{host} is not an IPv{family} address")
        return found

    async def resolve(self, host: str, *, family: int = 0) -> list[str]:
        """The addresses of a host, at least one.  Raises ResolveError."""
        found = self.known(host, family=family)
        if found is not None:
            return found
        name = _name(host)
        for rdtype in _KINDS[family]:
            entry = await self._answer(name, rdtype)
            if entry.problem:
                raise ResolveError(entry.problem)
            if entry.addresses:
                return entry.addresses
        raise ResolveError(_no_address(name, family))

    async def query(self, name: str, rdtype: str, *, server: str = "", port: int = 0) -> Reply:
        """One question, asked afresh, of `server` (an address) or of this machine's nameservers.

        Raises ResolveError when no answer came that could be read.
        """
        self._machine.refresh()
        resolver = self._machine.resolver
        if server:
            servers = [server]
        else:
            servers = [str(s) for s in resolver.nameservers] if resolver is not None else []
        if not servers:
            raise ResolveError("this machine names no nameserver")
        try:
            return await ask(name, rdtype, servers, port=port or self._port, try_s=self._try_s)
        except dns.exception.DNSException as error:
            raise ResolveError(_sentence(name, error)) from None
        except OSError as error:
            raise ResolveError(
                f"the nameserver {servers[0]} cannot be asked: {error.strerror or error}"
            ) from None

    async def aclose(self) -> None:
        """End the questions under way."""
        tasks = [question.task for question in self._questions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def questions(self) -> int:
        """How many questions are under way or wait for their turn."""
        return len(self._questions)

    @property
    def entries(self) -> int:
        return len(self._entries)

    # What is known

    def _kept(self, name: str, family: int) -> list[str] | None:
        if self._machine.refresh():
            self._entries.clear()
        found = self._machine.addresses(name)
        if found is not None:
            found = _of(family, found)
            if not found:
                raise ResolveError(_no_address(name, family))
            return found
        for rdtype in _KINDS[family]:
            entry = self._fresh((name, rdtype))
            if entry is None:
                return None
            if entry.problem:
                raise ResolveError(entry.problem)
            if entry.addresses:
                return entry.addresses
        raise ResolveError(_no_address(name, family))

    def _fresh(self, key: tuple[str, str]) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires > self._clock():
            return entry
        return None

    def _keep(self, key: tuple[str, str], entry: _Entry) -> None:
        self._entries.pop(key, None)
        while len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]  # the one answered longest ago
        self._entries[key] = entry

    # Questions

    async def _answer(self, name: str, rdtype: str) -> _Entry:
        key = (name, rdtype)
        entry = self._fresh(key)
        if entry is not None:
            return entry
        question = self._questions.get(key)
        if question is None:
            if len(self._questions) >= self._max_questions:
                raise ResolveError(
                    f"{name} was not resolved: {self._max_questions} other names are waiting"
                )
            question = _Question(asyncio.create_task(self._asked(key), name=f"dns {name}"))
            self._questions[key] = question
        question.waiting += 1
        try:
            return await asyncio.shield(question.task)
        finally:
            question.waiting -= 1

    async def _asked(self, key: tuple[str, str]) -> _Entry:
        try:
            async with self._permits:
                if not self._questions[key].waiting:
                    return _Entry([], 0.0, f"{key[0]} was not resolved")
                entry = await self._ask(*key)
            self._keep(key, entry)
            return entry
        finally:
            del self._questions[key]

    async def _ask(self, name: str, rdtype: str) -> _Entry:
        resolver = self._machine.resolver
        if resolver is None or not resolver.nameservers:
            return self._failed("this machine names no nameserver", FAILURE_S)
        try:
            answer = await resolver.resolve(
                name,
                rdtype,
                search=True,
                raise_on_no_answer=False,
                backend=dns.asyncbackend.get_backend("asyncio"),
            )
        except dns.resolver.NXDOMAIN as error:
            return self._failed(_sentence(name, error), NEGATIVE_S)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return self._failed(_sentence(name, error), FAILURE_S)
        self._machine.answered(answer.nameserver)
        now = self._clock()
        if answer.rrset is None:
            return _Entry([], now + NEGATIVE_S)
        ttl = min(max(float(answer.chaining_result.minimum_ttl), MIN_TTL_S), MAX_TTL_S)
        return _Entry([record.address for record in answer.rrset], now + ttl)

    def _failed(self, text: str, kept_s: float) -> _Entry:
        return _Entry([], self._clock() + kept_s, text)


def _name(host: str) -> str:
    try:
        return ascii_host(host)
    except HostError as error:
        raise ResolveError(str(error)) from None


def _of(family: int, addresses: list[str]) -> list[str]:
    if not family:
        return addresses
    return [address for address in addresses if (":" in address) == (family == 6)]


def _no_address(name: str, family: int) -> str:
    return f"{name} has no {f'IPv{family} ' if family else ''}address"


def _sentence(name: str, error: Exception) -> str:
    match error:
        case dns.resolver.NXDOMAIN():
            return f"{name} does not exist (NXDOMAIN)"
        case dns.resolver.LifetimeTimeout() | dns.exception.Timeout():
            return f"no nameserver answered for {name} in time"
        case dns.resolver.NoNameservers():
            return f"every nameserver failed to answer for {name}{_codes(error)}"
        case dns.exception.DNSException():
            return f"the answer for {name} cannot be used: {type(error).__name__}"
        case _:
            return f"{name} cannot be resolved: {type(error).__name__}: {str(error)[:200]}"


def _codes(error: dns.resolver.NoNameservers) -> str:
    texts = {str(item[3]) for item in error.kwargs.get("errors", ()) if isinstance(item[3], str)}
    return f" ({', '.join(sorted(texts))[:100]})" if texts else ""
