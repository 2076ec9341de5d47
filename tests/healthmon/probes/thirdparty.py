"""A kind of probe as a third party would add one: one function in one file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from healthmon.probes.kind import FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.dial import DialError, dial
from healthmon.probes.net.exchange import Exchange
from healthmon.probes.net.names import split, split_problem
from healthmon.probes.tools import Tools
from sinks.options import Secret


class GreetingOptions(ProbeOptions, frozen=True, kw_only=True):
    greeting: Annotated[str, msgspec.Meta(description="What it must say.")] = "hello"
    password: Annotated[Secret, msgspec.Meta(description="Told in every failure.")] = Secret("")


async def probe(request: Request, tools: Tools) -> Result:
    options = request.options
    assert isinstance(options, GreetingOptions)
    host, port = split(request.address)
    try:
        dialled = await dial(
            lambda: Exchange(max_bytes=100, clock=tools.monotonic),
            host=host,
            port=port,
            tools=tools,
        )
    except DialError as error:
        text = f"{error.text}, with {options.password.reveal()}"  # careless, as others may be
        return Result(outcome=FAILED, error=text)
    wanted = options.greeting.encode()
    try:
        if await dialled.protocol.until(lambda data: wanted in data):
            return Result(address=dialled.address)
        return Result(outcome=FAILED, error="the connection was closed or reset too early")
    finally:
        dialled.transport.abort()


KIND = ProbeKind(
    name="greeting",
    label="Greeting",
    description="Waits for a greeting.",
    Options=GreetingOptions,
    address_label="Host and port",
    address_example="host:7",
    address_problem=split_problem,
    host=lambda address: split(address)[0],
    probe=probe,
)
