"""Fixtures of the idempotency tests: a desk on the run's database, with real threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest


@pytest.fixture
def make_desk(transactional_db: None) -> Iterator[Callable[..., Any]]:
    """Makes started desks; stops them at the end."""
    from control.idempotency.desk import Desk
    from control.idempotency.store import Store

    desks: list[Desk] = []

    def make(**options: Any) -> Desk:
        values = {"store": Store(keep_for=timedelta(hours=24)), "wait_s": 60.0, "limit": 64}
        desk = Desk(**{**values, **options})
        desk.start()
        desks.append(desk)
        return desk

    yield make
    for desk in desks:
        desk.stop(30.0)
