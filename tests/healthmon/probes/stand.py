"""Running one probe as the checker would, on a loop that is watched, and cutting it off anywhere.

Each run has an event loop of its own in debug mode.  Afterwards no task, no registered descriptor
and no open socket of it may be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import stat
import tempfile
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from control.outbound.policy import AddressPolicy
from healthmon.probes.kind import ERROR_CHARS, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.resolver import Resolver
from healthmon.probes.net.tls import Contexts
from healthmon.probes.registry import kind_of
from healthmon.probes.tools import Tools
from healthmon.probes.trial import run_probe
from sinks.options import decode_options
from tests.healthmon.probes.listeners.nameserver import Nameserver

WAIT_S = 180.0
SLOW_CALLBACK_S = 2.0
# What asyncio says of a step that was slow.
SLOW_STEP = "Executing %s took %.3f seconds"

_T = TypeVar("_T")

CONTEXTS = Contexts()


def resolver(
    nameservers: Nameserver | list[Nameserver] | None = None,
    *,
    hosts: str = "127.0.0.1 localhost\n",
    search: str = "",
    **settings: Any,
) -> Resolver:
    """A resolver that knows these nameservers (all on one port) and this hosts file only."""
    listed = [] if nameservers is None else nameservers
    servers = listed if isinstance(listed, list) else [listed]
    folder = Path(tempfile.mkdtemp(prefix="collector-names-"))
    lines = [f"nameserver {server.address}" for server in servers] + ([search] if search else [])
    (folder / "resolv.conf").write_text("\n".join(lines) + "\n")
    (folder / "hosts").write_text(hosts)
    return Resolver(
        resolv_conf=str(folder / "resolv.conf"),
        hosts=str(folder / "hosts"),
        port=servers[0].port if servers else 53,
        **settings,
    )


def tools(
    *,
    names: Resolver | None = None,
    policy: AddressPolicy | None = None,
    max_body_bytes: int = 64 * 1024,
) -> Tools:
    return Tools(
        resolver=names or resolver(),
        policy=policy or AddressPolicy(),
        contexts=CONTEXTS,
        max_body_bytes=max_body_bytes,
    )


def request(
    kind: ProbeKind | str, address: str, options: dict[str, Any], timeout_s: float = WAIT_S
) -> tuple[ProbeKind, Request]:
    chosen = kind_of(kind) if isinstance(kind, str) else kind
    decoded: ProbeOptions = decode_options(chosen.Options, options)
    return chosen, Request(address=address, options=decoded, timeout_s=timeout_s)


def probe(
    kind: ProbeKind | str,
    address: str,
    options: dict[str, Any] | None = None,
    *,
    with_tools: Tools | None = None,
    timeout_s: float = WAIT_S,
) -> Result:
    """One probe, and that nothing is left of it."""
    given = with_tools or tools()
    chosen, asked = request(kind, address, options or {}, timeout_s)
    result = on_loop(lambda: run_probe(chosen, asked, given), closing=given.resolver)
    assert len(result.error) <= ERROR_CHARS
    assert "\n" not in result.error
    assert bool(result.error) == (result.outcome != "ok")
    return result


def on_loop(make: Callable[[], Coroutine[Any, Any, _T]], *, closing: Resolver | None = None) -> _T:
    """Run on a fresh loop in debug mode; nothing may be left open, nothing may hold the loop."""
    with _unheld(), _unleaked(), asyncio.Runner(debug=True) as runner:
        runner.get_loop().slow_callback_duration = SLOW_CALLBACK_S
        return runner.run(_watched(make, closing))


async def _watched(make: Callable[[], Coroutine[Any, Any, _T]], closing: Resolver | None) -> _T:
    try:
        return await make()
    finally:
        if closing is not None:
            await closing.aclose()
        await asyncio.sleep(0)  # transports tell of their end at the next turn
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"
        selector = getattr(asyncio.get_running_loop(), "_selector", None)
        if selector is not None:  # uvloop shows none
            assert len(selector.get_map()) == 1, "descriptors are still registered with the loop"


@contextlib.contextmanager
def _unleaked() -> Iterator[None]:
    """What nothing refers to any more is closed by Python, with a warning that fails the test."""
    before = _open_sockets()
    yield
    left = _open_sockets() - before
    assert not left, f"sockets left open: {left}"


def _open_sockets() -> set[tuple[int, int]]:
    """Those of event loops, by descriptor and inode: the listeners' own block."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode) and not os.get_blocking(int(name)):
                found.add((int(name), status.st_ino))
    return found


@contextlib.contextmanager
def _unheld() -> Iterator[None]:
    """Nothing is said of the loop, such as that a step held it for long.

    What the machine took is no step's fault: the time that threads of this process waited for a
    processor is taken off, of all of them, as any may have had the interpreter's lock meanwhile;
    and once something has come from the disk, as modules do, no step of this run is judged.
    """
    said: list[str] = []
    before = _machine()

    def note(record: logging.LogRecord) -> None:
        if record.msg == SLOW_STEP and isinstance(record.args, tuple):
            now, (_, took_s) = _machine(), record.args
            waited_ns = sum(ns - before.waits_ns.get(one, 0) for one, ns in now.waits_ns.items())
            held_s = float(str(took_s)) - waited_ns / 1e9
            if now.blocks > before.blocks or held_s < SLOW_CALLBACK_S:
                return
        said.append(record.getMessage())

    handler = logging.Handler()
    handler.emit = note  # type: ignore[method-assign]
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not said, said


class _Machine(NamedTuple):
    """What this process's threads have waited for a processor (ns, by thread), and blocks read."""

    waits_ns: dict[str, int]
    blocks: int


def _machine() -> _Machine:
    waits_ns = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has ended
            waits_ns[thread.parent.name] = int(thread.read_text().split()[1])
    return _Machine(waits_ns, resource.getrusage(resource.RUSAGE_THREAD).ru_inblock)


class CutOff:
    """Awaits `work` and cancels the task at the `at`-th await: while it waits, or just after.

    `just_after` is the narrower race: what was awaited is done, and the cancellation comes before
    the task has heard of it.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], *, at: int, just_after: bool) -> None:
        self._work = work
        self._at = at
        self._just_after = just_after
        self.cut = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = functools.partial(self._work.send, None)
        awaits = 0
        while True:
            try:
                future = step()
            except StopIteration as stop:
                return stop.value
            awaits += 1
            if awaits == self._at and not self.cut:
                self._cut(future)
            try:
                yield future
            except BaseException as error:  # all of it is the work's
                step = functools.partial(self._work.throw, error)
            else:
                step = functools.partial(self._work.send, None)

    def _cut(self, future: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.cut = True
        if self._just_after and future is not None:
            future.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


def cut_off_everywhere(
    make: Callable[[], Coroutine[Any, Any, Any]], *, closing: Resolver | None = None
) -> int:
    """Run again and again, each time cut off one await later, until it gets through.

    Returns at how many awaits it was cut off.  `make` must be one that gets through by itself.
    """
    places = 0
    for just_after in (False, True):
        for at in range(1, 100):
            cutter: list[CutOff] = []

            async def attempt(at: int = at, just_after: bool = just_after) -> None:
                cutter.append(CutOff(make(), at=at, just_after=just_after))  # noqa: B023
                task = asyncio.create_task(_through(cutter[0]))  # noqa: B023
                await asyncio.wait((task,))
                if not task.cancelled():
                    task.result()

            on_loop(attempt, closing=closing)
            if not cutter[0].cut:
                break
            places += 1
    return places


async def _through(cutter: CutOff) -> None:
    await cutter
