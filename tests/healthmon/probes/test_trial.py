"""What a probe says can be shown and stored, whatever a kind makes of it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from healthmon.probes.kind import FAILED, ProbeOptions, Request, Result
from healthmon.probes.registry import kind_of
from healthmon.probes.tools import Tools
from healthmon.probes.trial import run_probe
from tests.healthmon.probes import stand

ODD = "x \udcff y\0 \ud83d z"


async def _raises(request: Request, tools: Tools) -> Result:
    raise RuntimeError(ODD)


async def _says(request: Request, tools: Tools) -> Result:
    return Result(outcome=FAILED, error=ODD, address=ODD)


@pytest.mark.parametrize(
    ("probe", "error", "address"),
    [(_raises, "RuntimeError: x ? y? ? z", ""), (_says, "x ? y? ? z", "x ? y? ? z")],
)
def test_texts_that_nothing_could_store_are_made_good(probe, error, address):
    kind = dataclasses.replace(kind_of("tcp"), probe=probe)
    request = Request(address="a:1", options=ProbeOptions(), timeout_s=5.0)
    result = asyncio.run(run_probe(kind, request, stand.tools()))
    assert (result.error, result.address) == (error, address)
