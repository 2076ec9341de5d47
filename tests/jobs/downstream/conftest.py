"""A toy downstream service, and callers that leave no connection behind."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from jobs.toy.server import Toy

if TYPE_CHECKING:
    from tests.jobs.downstream.stand import Caller


@pytest.fixture
def make_toy() -> Iterator[Callable[..., Toy]]:
    toys: list[Toy] = []

    def make(**options: Any) -> Toy:
        toys.append(Toy(**options))
        toys[-1].start()
        return toys[-1]

    yield make
    for toy in toys:
        toy.stop()


@pytest.fixture
def toy(make_toy: Callable[..., Toy]) -> Toy:
    return make_toy()


@pytest.fixture
def make_caller() -> Iterator[Callable[..., Caller]]:
    from tests.jobs.downstream.stand import Caller  # needs Django to be set up

    callers: list[Caller] = []

    def make(**options: Any) -> Caller:
        callers.append(Caller(**options))
        return callers[-1]

    yield make
    for caller in callers:
        caller.downstreams.close()


@pytest.fixture
def caller(make_caller: Callable[..., Caller]) -> Caller:
    return make_caller()


@pytest.fixture
def blackhole() -> Iterator[str]:
    """The URL of a listener whose queue is full: connecting to it gets no answer."""
    with contextlib.ExitStack() as open_ones:
        listener = open_ones.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            one = open_ones.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
