"""How many HTTP probes one CPU-second of the probing process makes, on stock asyncio.

    .venv/bin/python -m benchmarks.probe_http [PROBES] [--profile]

Listeners are processes of their own on loopback addresses 127.0.0.1 to 127.0.0.8; each probe is a
connection of its own under a total deadline, 100 in flight.  Beside our probe, in the same run, a
bare loop over asyncio.open_connection that only reads until the end.  Ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

BODY = b'{"status":"ok","checks":[{"name":"db","ok":true}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 22 Nov 2026 04:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
    b"Vary: Accept-Encoding\r\nX-Request-ID: 0123456789abcdef\r\nConnection: close\r\n\r\n"
) % len(BODY) + BODY
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close\r\n\r\n"
HOSTS = [f"127.0.0.{last}" for last in range(1, 9)]
IN_FLIGHT = 100
DEADLINE_S = 10.0

Probing = Callable[[str], Awaitable[None]]


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(ANSWER)
        self.transport.close()


async def _serve(sockets: list[socket.socket], context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    for sock in sockets:
        await loop.create_server(_Answering, sock=sock, ssl=context, backlog=1024)
    await asyncio.Event().wait()


@contextmanager
def listeners(context: ssl.SSLContext | None) -> Iterator[int]:
    """Two processes answering on every host; yields their port."""
    sockets = []
    port = 0
    for host in HOSTS:
        sock = socket.socket()
        sock.bind((host, port))
        sock.listen(1024)
        port = sock.getsockname()[1]
        sockets.append(sock)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.alarm(300)  # ends by itself whatever becomes of the parent
            try:
                asyncio.run(_serve(sockets, context))
            finally:
                os._exit(0)
        children.append(child)
    for sock in sockets:
        sock.close()
    try:
        yield port
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


async def measure(name: str, one: Probing, urls: list[str], probes: int) -> float:
    """Probes per CPU-second of this process."""
    addresses = cycle(urls)
    left = probes

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            async with asyncio.timeout(DEADLINE_S):
                await one(next(addresses))

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if name:
        print(
            f"  {name:<34}{probes / cpu:>8,.0f} /CPU-s {cpu / probes * 1e6:>7.0f} us"
            f"{probes / wall:>9,.0f} /s",
            flush=True,
        )
    return probes / cpu


async def measure_quietly(one: Probing, urls: list[str], probes: int) -> float:
    """Probes per CPU-second of this process, after a first that pays for what is made once."""
    await one(urls[0])
    return await measure("", one, urls, probes)


def _probing(ca_file: str, **options: object) -> Probing:
    from control.outbound.policy import AddressPolicy
    from healthmon.probes.http.kind import probe
    from healthmon.probes.http.options import HttpOptions
    from healthmon.probes.kind import Request
    from healthmon.probes.net.resolver import Resolver
    from healthmon.probes.net.tls import Contexts
    from healthmon.probes.tools import Tools

    tools = Tools(resolver=Resolver(), policy=AddressPolicy(), contexts=Contexts())
    requests: dict[str, Request] = {}

    async def one(url: str) -> None:
        request = requests.get(url)
        if request is None:
            request = requests[url] = Request(
                address=url,
                options=HttpOptions(ca_file=ca_file, **options),  # type: ignore[arg-type]
                timeout_s=DEADLINE_S,
            )
        result = await probe(request, tools)
        if result.outcome != "ok":
            raise SystemExit(f"the probe of {url} failed: {result.error}")

    return one


def bare(port: int, context: ssl.SSLContext | None) -> Probing:
    """Connects, asks, reads to the end: what no probe can be cheaper than on asyncio's streams."""

    async def one(url: str) -> None:
        host = url.split("/")[2].partition(":")[0]
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(REQUEST)
        if not (await reader.read()).startswith(b"HTTP/1.1 200"):
            raise SystemExit("the bare loop was answered badly")
        writer.transport.abort()

    return one


async def _compare(port: int, probes: int, ca_file: str, profile: bool) -> None:
    scheme = "https" if ca_file else "http"
    urls = [f"{scheme}://{host}:{port}/health" for host in HOSTS]
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    floor_of, ours, judged = (
        bare(port, context),
        _probing(ca_file),
        _probing(
            ca_file, body_contains=["ok"], json_path="$.status", json_operator="==", json_value="ok"
        ),
    )
    for one in (floor_of, ours, judged):  # contexts, plans and imports are not what is measured
        await one(urls[0])
    print("TLS, full handshakes:" if ca_file else "plain:")
    floor = await measure("asyncio.open_connection, bare", floor_of, urls, probes)
    rate = await measure("our probe", ours, urls, probes)
    await measure("our probe, conditions on the body", judged, urls, probes)
    print(f"  ratio to the bare loop: {rate / floor:.2f}", flush=True)
    if profile:
        with cProfile.Profile() as profiler:
            await measure("our probe, profiled", ours, urls, probes)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def _authority(directory: Path) -> tuple[str, ssl.SSLContext]:
    """An authority's file and a server's context for the loopback addresses."""
    from tests.healthmon.probes.listeners.authority import Authority

    authority = Authority(directory)
    return authority.ca_file, authority.server_context(*HOSTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("probes", nargs="?", type=int, default=6000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--uvloop", action="store_true", help="probe on uvloop")
    arguments = parser.parse_args()
    probes = min(max(arguments.probes, IN_FLIGHT), 100_000)
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if arguments.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with listeners(None) as port, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_compare(port, probes, "", arguments.profile))
    with tempfile.TemporaryDirectory() as directory:
        ca_file, context = _authority(Path(directory))
        with listeners(context) as port, asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_compare(port, min(probes, 4000), ca_file, arguments.profile))


if __name__ == "__main__":
    main()
