"""Running one HTTP probe from a test."""

from __future__ import annotations

import asyncio
from typing import Any

from healthmon.probes.http.kind import KIND
from healthmon.probes.http.options import HttpOptions
from healthmon.probes.kind import Request, Result
from healthmon.probes.tools import Tools
from sinks.options import decode_options
from tests.healthmon.probes.http.scripted import Script, Server, serving

PATIENCE_S = 180.0


async def probe_url(url: str, tools: Tools, **options: Any) -> Result:
    assert KIND.probe is not None
    request = Request(address=url, options=decode_options(HttpOptions, options), timeout_s=10)
    async with asyncio.timeout(PATIENCE_S):
        return await KIND.probe(request, tools)


def probed(script: Script | bytes, tools: Tools, *, path: str = "/", **options: Any) -> Result:
    """What a probe finds at a server that does what `script` says."""
    return probed_by(script, tools, path=path, **options)[0]


def probed_by(
    script: Script | bytes,
    tools: Tools,
    *,
    path: str = "/",
    host: str = "127.0.0.1",
    **options: Any,
) -> tuple[Result, Server]:
    async def run() -> tuple[Result, Server]:
        async with serving(script, host=host) as server:
            return await probe_url(server.url(path), tools, **options), server

    return asyncio.run(run())
