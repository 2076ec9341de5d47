"""Both stores keep the contract; on both databases."""

from __future__ import annotations

import pytest

from tests.jobs.store.contract import Contract
from tests.jobs.store.stand import DatabaseStand, MemoryStand, Stand


class TestMemoryStore(Contract):
    @pytest.fixture
    def stand(self) -> Stand:
        return MemoryStand()


class TestDatabaseStore(Contract):
    @pytest.fixture
    def stand(self, db: None) -> Stand:
        return DatabaseStand()
