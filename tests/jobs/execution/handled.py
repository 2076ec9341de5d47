"""Handlers for the tests; imported by dotted path, as operators' own are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from subprocess import run as run  # something that must not be reached through this module
from typing import Any

from jobs.execution.context import StepContext
from pipeline.errors import PermanentError, RetryableError

seen: list[StepContext] = []


def remember(context: StepContext) -> dict[str, Any]:
    seen.append(context)
    return {"token": context.token, "attempt": context.attempt, "results": context.results}


def spoil(context: StepContext) -> None:
    """Changes what it was given."""
    context.payload.clear()
    context.results.clear()  # type: ignore[attr-defined]


def break_down(context: StepContext) -> None:
    raise KeyError("no such thing")


def refuse(context: StepContext) -> None:
    raise PermanentError("never")


def not_now(context: StepContext) -> None:
    raise RetryableError("busy", retry_after_s=20)


def leave(context: StepContext) -> None:
    sys.exit(3)


def odd(context: StepContext) -> object:
    return object()


def large(context: StepContext) -> str:
    return "x" * 20_000


def wait_long(context: StepContext) -> str:
    context.wait(100_000)
    return "waited"


async def later(context: StepContext) -> None:
    """Nobody awaits it."""


def one_by_one(context: StepContext) -> Iterator[int]:
    yield 1


def wants_more(context: StepContext, more: int) -> None:
    """Cannot be called with a context alone."""


class Made:
    """A class, not a function."""


def _hidden(context: StepContext) -> None:
    """Not for operators."""


constant = 3
