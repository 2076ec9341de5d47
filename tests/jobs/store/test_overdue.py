"""What waits beyond its deadline ends, though nobody claims it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.states import DEAD, DEADLINE, QUEUED, RUNNING, SCHEDULED
from jobs.upkeep.service import OVERDUE_AGAIN_S, OVERDUE_JOBS, Overdue
from tests.jobs.store.stand import DatabaseStand, MemoryStand, Stand


@pytest.fixture(params=[MemoryStand, DatabaseStand], ids=["memory", "database"])
def stand(request: pytest.FixtureRequest, db: None) -> Stand:
    made: Stand = request.param()
    return made


def test_what_waits_beyond_its_deadline_is_dead(stand: Stand) -> None:
    held = stand.running(deadline_s=5.0)
    queued = stand.submit(deadline_s=5.0)
    planned = stand.submit(run_at=stand.now + timedelta(seconds=3), deadline_s=2.0)
    in_time, endless = stand.submit(deadline_s=60.0), stand.submit()
    assert stand.store.overdue() == 0
    stand.clock.advance(5.0)
    assert stand.store.overdue() == 2
    assert stand.store.overdue() == 0
    for one, before in ((queued, QUEUED), (planned, SCHEDULED)):
        job = stand.look(one)
        assert (job.state, job.reason, job.attempts) == (DEAD, DEADLINE, 0)
        assert job.finished_at == stand.now
        assert "deadline" in job.error
        assert stand.story(one) == [before, DEAD]
    assert stand.look(held.id).state == RUNNING
    assert [stand.look(one).state for one in (in_time, endless)] == [QUEUED, QUEUED]
    assert stand.store.counts() == stand.counted()
    assert {job.id for job in stand.claim()} == {in_time, endless}


def test_no_more_than_asked_for_at_once(stand: Stand) -> None:
    for _ in range(3):
        stand.submit(deadline_s=1.0)
    stand.clock.advance(1.0)
    assert [stand.store.overdue(2) for _ in range(3)] == [2, 1, 0]


def test_upkeep_comes_again_at_once_where_there_is_more() -> None:
    class Store:
        ended = OVERDUE_JOBS

        def overdue(self, limit: int) -> int:
            return min(limit, self.ended)

    store = Store()
    ending = Overdue(store=store)  # type: ignore[arg-type]
    assert ending.run() == OVERDUE_AGAIN_S
    store.ended = 3
    assert ending.run() is None
