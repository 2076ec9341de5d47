"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.runtime.clock import FakeClock
from tests.pipeline.rig import Rig


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """An engine on a fake clock, ended after the test."""
    rig = Rig()
    yield rig
    rig.end()
