"""Fixtures of the history's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def sink(transactional_db: None) -> Iterator[Any]:
    # Imported here: models cannot be before Django is set up.
    from control import partitions
    from healthmon.history.table import RESULTS
    from tests.healthmon.history.results import new_sink

    partitions.forget(RESULTS.table)
    sink = new_sink()
    yield sink
    sink.close()
