"""What every Store promises; run by each implementation, and on each database.

A class that inherits from these has a fixture `stand`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobs.states import CANCELLED, DEAD, DISCARDED, QUEUED, RUNNING, SCHEDULED, SUCCEEDED
from jobs.store.protocol import (
    Again,
    Draft,
    Ended,
    KeyedBy,
    Progress,
    Repeated,
    StepRecord,
    Write,
)
from jobs.store.values import Unstorable
from tests.jobs.store.stand import Stand


def keyed(key: str = "k", digest: str = "d", response: str = "first", keep_s: float = 60.0):
    return KeyedBy(key=key, digest=digest, status=202, response=response, keep_s=keep_s)


class TakingIn:
    def test_a_job_that_may_run_now_is_queued(self, stand: Stand) -> None:
        job = stand.look(stand.submit(payload={"a": [1, "ü", None]}, correlation_id="c-1"))
        assert (job.state, job.attempts, job.claim, job.run_at) == (QUEUED, 0, 0, stand.now)
        assert (job.payload, job.correlation_id) == ({"a": [1, "ü", None]}, "c-1")
        assert stand.story(job.id) == [QUEUED]

    def test_one_whose_time_has_not_come_is_scheduled(self, stand: Stand) -> None:
        later = stand.now + timedelta(seconds=30)
        job = stand.look(stand.submit(run_at=later, deadline_s=10.0))
        assert (job.state, job.run_at) == (SCHEDULED, later)
        assert job.deadline_at == later + timedelta(seconds=10)
        assert stand.claim() == []

    def test_a_time_that_is_over_is_now(self, stand: Stand) -> None:
        job = stand.look(stand.submit(run_at=stand.now - timedelta(days=1), deadline_s=5.0))
        assert (job.state, job.run_at) == (QUEUED, stand.now)
        assert job.deadline_at == stand.now + timedelta(seconds=5)

    def test_the_same_draft_again_is_one_job(self, stand: Stand) -> None:
        draft = Draft(type_id=stand.one, payload={})
        assert stand.store.submit([draft, draft]) == [None, None]
        assert stand.store.submit([draft]) == [None]
        assert stand.ids() == [draft.id]
        assert stand.store.counts() == {stand.one: {QUEUED: 1}}

    def test_nothing_is_taken_in_for_nothing(self, stand: Stand) -> None:
        assert stand.store.submit([]) == []

    def test_a_key_that_was_used_answers_as_before_and_keeps_no_job(self, stand: Stand) -> None:
        first = stand.submit(keyed=keyed())
        again = Draft(type_id=stand.one, payload={}, keyed=keyed(digest="other", response="2nd"))
        assert stand.store.submit([again]) == [Repeated(digest="d", status=202, response="first")]
        assert stand.ids() == [first]

    def test_a_key_is_its_tenants(self, stand: Stand) -> None:
        stand.submit(keyed=keyed())
        stand.submit(keyed=keyed(), tenant="other")
        assert len(stand.ids()) == 2

    def test_an_expired_key_is_taken_over(self, stand: Stand) -> None:
        stand.submit(keyed=keyed(keep_s=60.0))
        stand.clock.advance(60.0)
        stand.submit(keyed=keyed(response="second"))
        again = Draft(type_id=stand.one, payload={}, keyed=keyed())
        assert stand.store.submit([again]) == [Repeated(digest="d", status=202, response="second")]
        assert len(stand.ids()) == 2

    def test_the_same_key_twice_at_once_keeps_the_first(self, stand: Stand) -> None:
        drafts = [
            Draft(type_id=stand.one, payload={"n": 1}, keyed=keyed(response="r1")),
            Draft(type_id=stand.one, payload={"n": 2}),
            Draft(type_id=stand.one, payload={"n": 3}, keyed=keyed(response="r3")),
        ]
        assert stand.store.submit(drafts) == [
            None,
            None,
            Repeated(digest="d", status=202, response="r1"),
        ]
        assert sorted(stand.ids()) == sorted(one.id for one in drafts[:2])

    @pytest.mark.parametrize(
        "payload",
        [{"a": "x\0y"}, {"a": float("nan")}, {"a": "\ud800"}, {"a\0": 1}, {"a": object()}],
        ids=["nul", "nan", "surrogate", "nul in a name", "no json"],
    )
    def test_a_payload_that_no_database_keeps_is_refused(self, stand: Stand, payload) -> None:
        with pytest.raises(Unstorable, match="the payload"):
            stand.store.submit([Draft(type_id=stand.one, payload=payload)])
        assert stand.ids() == []

    def test_a_payload_that_only_looks_like_a_nul_is_kept(self, stand: Stand) -> None:
        job = stand.submit(payload={"a": "C:\\u0000"})
        assert stand.look(job).payload == {"a": "C:\\u0000"}


class Claiming:
    def test_by_priority_then_age(self, stand: Stand) -> None:
        low, first, second, high = (
            stand.submit(priority=1),
            stand.submit(),
            stand.submit(stand.two),
            stand.submit(priority=9),
        )
        assert [job.id for job in stand.claim(3)] == [high, first, second]
        assert [job.id for job in stand.claim(3)] == [low]
        assert stand.claim(3) == []

    def test_what_a_runner_is_told(self, stand: Stand) -> None:
        job_id = stand.submit(
            payload={"n": 1},
            tenant="t",
            priority=7,
            correlation_id="c",
            service="s",
            traceparent="00-1",
            webhook_url="https://h/",
            deadline_s=100.0,
        )
        created = stand.now
        stand.clock.advance(30.0)
        job = stand.claim_one()
        assert (job.id, job.type_id, job.claim, job.attempts) == (job_id, stand.one, 1, 0)
        assert (job.payload, job.tenant, job.priority) == ({"n": 1}, "t", 7)
        assert (job.correlation_id, job.service, job.traceparent) == ("c", "s", "00-1")
        assert (job.webhook_url, job.created_at, job.steps) == ("https://h/", created, {})
        assert job.deadline_in_s == pytest.approx(70.0)
        assert job.waited_s == pytest.approx(30.0)

    def test_a_claimed_job_is_its_runners(self, stand: Stand) -> None:
        claimed = stand.running()
        job = stand.look(claimed.id)
        assert (job.state, job.runner, job.worker) == (RUNNING, "r1", "r1/*")
        assert job.started_at == stand.now
        (_, event) = stand.events(job.id)
        assert (event.state, event.claim, event.attempt) == (RUNNING, 1, 1)

    def test_only_of_the_types_that_were_asked_for(self, stand: Stand) -> None:
        other, mine = stand.submit(stand.one), stand.submit(stand.two)
        assert [job.id for job in stand.store.claim("r1", "w", 9, types=[stand.two])] == [mine]
        assert stand.store.claim("r1", "w", 9, types=[]) == []
        assert stand.look(other).state == QUEUED

    def test_nothing_is_given_to_a_runner_that_is_not_known(self, stand: Stand) -> None:
        job = stand.submit()
        assert stand.claim(runner="r2") == []
        stand.store.leave("r1")
        assert stand.claim() == []
        assert (stand.look(job).state, stand.look(job).claim) == (QUEUED, 0)

    def test_nothing_is_given_to_who_has_no_room(self, stand: Stand) -> None:
        stand.submit()
        assert stand.claim(0) == []

    def test_the_next_claim_has_the_next_number_and_the_steps_so_far(self, stand: Stand) -> None:
        job = stand.running()
        done = StepRecord(
            name="a",
            state="succeeded",
            attempts=1,
            started_at=stand.now,
            finished_at=stand.now + timedelta(milliseconds=1500),
            duration_ms=1500.0,
            status_code=201,
            result={"x": ["ü"]},
        )
        failed = StepRecord(name="b", stage=2, state="retrying", attempts=1, error="no answer")
        assert stand.again(job, steps=[done, failed])
        again = stand.claim_one()
        assert (again.claim, again.attempts) == (2, 1)
        assert again.steps == {"a": done, "b": failed}

    def test_has_queued(self, stand: Stand) -> None:
        assert not stand.store.has_queued()
        stand.submit()
        assert stand.store.has_queued()
        stand.claim()
        assert not stand.store.has_queued()


class Limits:
    def test_no_more_at_once_than_the_type_allows(self, stand: Stand) -> None:
        few = stand.make_type("few", max_concurrent=2)
        stand.store.join("r2", host="there", pid=2)
        for _ in range(5):
            stand.submit(few)
        first = stand.claim(1) + stand.claim(9, runner="r2")
        assert [job.type_id for job in first] == [few, few]
        assert stand.claim() == []
        stand.end(first[0])
        assert len(stand.claim()) == 1

    def test_a_type_without_room_does_not_stand_in_others_way(self, stand: Stand) -> None:
        few = stand.make_type("few", max_concurrent=1)
        limited = [stand.submit(few, priority=9) for _ in range(3)]
        other = stand.submit(priority=1)
        assert [job.id for job in stand.claim(2)] == [limited[0], other]

    def test_no_more_in_time_than_the_type_allows(self, stand: Stand) -> None:
        slow = stand.make_type("slow", rate_per_s=0.5, burst=2)
        for _ in range(6):
            stand.submit(slow)
        assert len(stand.claim()) == 2
        assert stand.claim() == []
        stand.clock.advance(1.9)
        assert stand.claim() == []
        stand.clock.advance(0.1)
        assert len(stand.claim()) == 1
        stand.clock.advance(1000.0)
        assert len(stand.claim()) == 2

    def test_a_rate_below_one_a_second_lets_one_through_at_a_time(self, stand: Stand) -> None:
        slow = stand.make_type("slow", rate_per_s=0.1)
        stand.submit(slow)
        stand.submit(slow)
        assert len(stand.claim()) == 1
        stand.clock.advance(9.9)
        assert stand.claim() == []
        stand.clock.advance(0.2)
        assert len(stand.claim()) == 1

    def test_a_clock_that_is_set_back_lets_nothing_through_and_stops_nothing(
        self, stand: Stand
    ) -> None:
        slow = stand.make_type("slow", rate_per_s=1.0, burst=1)
        for _ in range(3):
            stand.submit(slow)
        assert len(stand.claim()) == 1
        stand.clock.advance(-3600.0)
        assert stand.claim() == []
        stand.clock.advance(1.0)
        assert len(stand.claim()) == 1

    def test_a_limit_that_is_lifted_holds_no_more(self, stand: Stand) -> None:
        few = stand.make_type("few", max_concurrent=1)
        for _ in range(3):
            stand.submit(few)
        assert len(stand.claim()) == 1
        del stand.types[few]
        assert len(stand.store.claim("r1", "w", 9, types=[few])) == 2


class Writing:
    def test_a_job_that_succeeded(self, stand: Stand) -> None:
        claimed = stand.running()
        stand.clock.advance(2.0)
        step = StepRecord(name="a", state="succeeded", attempts=1, result=[1])
        assert stand.end(claimed, result={"a": 1}, steps=[step], ran_s=2.0, text="well done")
        job = stand.look(claimed.id)
        assert (job.state, job.reason, job.result, job.error) == (SUCCEEDED, "", {"a": 1}, "")
        assert (job.attempts, job.runner, job.worker) == (1, "", "r1/1")
        assert job.finished_at == stand.now
        assert stand.steps(job.id) == {"a": step}
        event = stand.events(job.id)[-1]
        assert (event.state, event.claim, event.attempt) == (SUCCEEDED, 1, 1)
        assert (event.worker, event.text, event.at) == ("r1/1", "well done", stand.now)

    def test_a_job_that_is_dead_says_why(self, stand: Stand) -> None:
        claimed = stand.running()
        assert stand.end(claimed, DEAD, reason="permanent", error="step a: HTTP 404")
        job = stand.look(claimed.id)
        assert (job.state, job.reason, job.error) == (DEAD, "permanent", "step a: HTTP 404")
        assert job.result is None
        assert stand.events(job.id)[-1].text == "step a: HTTP 404"

    def test_a_job_that_is_tried_again_waits(self, stand: Stand) -> None:
        claimed = stand.running()
        assert stand.again(claimed, delay_s=10.0, error="HTTP 503")
        job = stand.look(claimed.id)
        assert (job.state, job.attempts, job.runner) == (SCHEDULED, 1, "")
        assert job.run_at == stand.now + timedelta(seconds=10)
        assert (job.error, job.finished_at) == ("HTTP 503", None)
        assert stand.claim() == []

    def test_a_job_that_is_given_back_costs_nothing(self, stand: Stand) -> None:
        claimed = stand.running()
        assert stand.again(claimed, spent=False)
        job = stand.look(claimed.id)
        assert (job.state, job.attempts, job.run_at) == (QUEUED, 0, stand.now)
        assert stand.claim_one().claim == 2

    def test_a_job_that_is_held_again_and_again_has_a_short_story(self, stand: Stand) -> None:
        job = stand.running()
        said = "toy is not called now: its breaker is open"
        for _ in range(38):
            assert stand.again(job, spent=False, delay_s=2.0, text=said)
            stand.clock.advance(2.0)
            stand.store.promote()
            job = stand.claim_one()
        events = stand.events(job.id)[:-2]  # those are of the claim
        told = [(event.state, event.text) for event in events]
        came, began = (QUEUED, "its time came"), (RUNNING, "")
        assert told == [
            (QUEUED, ""), began, (SCHEDULED, said), came, began,
            (SCHEDULED, f"held 38 times: {said}"),
        ]  # fmt: skip
        assert events[-1].at == stand.now - timedelta(seconds=2)
        assert events[-1].claim == 38
        assert stand.store.counts() == stand.counted()

    def test_only_the_same_hold_is_told_as_one(self, stand: Stand) -> None:
        job = stand.running()
        holds: list[dict[str, Any]] = [
            {"text": "a", "spent": False},
            {"text": "b", "spent": False},
            {"text": "b", "spent": True},
            {"text": "b", "spent": False},
            {"text": "b", "spent": False},
        ]
        for hold in holds:
            assert stand.again(job, delay_s=2.0, **hold)
            stand.clock.advance(2.0)
            stand.store.promote()
            job = stand.claim_one()
        texts = [event.text for event in stand.events(job.id) if event.state == SCHEDULED]
        assert texts == ["a", "b", "b", "b", "held 2 times: b"]

    def test_a_late_hold_changes_no_story(self, stand: Stand) -> None:
        job = stand.running()
        for _ in range(3):
            stand.again(job, spent=False, delay_s=2.0, text="b")
            stand.clock.advance(2.0)
            stand.store.promote()
            late, job = job, stand.claim_one()
        before = stand.events(job.id)
        assert not stand.again(late, spent=False, delay_s=2.0, text="b")
        assert stand.events(job.id) == before

    def test_an_error_stands_until_there_is_another(self, stand: Stand) -> None:
        job = stand.running()
        stand.again(job, error="HTTP 503")
        stand.again(stand.claim_one(), spent=False)
        assert stand.look(job.id).error == "HTTP 503"
        stand.end(stand.claim_one())
        assert stand.look(job.id).error == ""

    def test_progress_is_kept_and_the_job_goes_on(self, stand: Stand) -> None:
        job = stand.running()
        began = StepRecord(name="a", state="running", attempts=1, started_at=stand.now)
        assert stand.store.write([Progress(id=job.id, claim=1, steps=[began])]) == [True]
        assert stand.steps(job.id) == {"a": began}
        assert stand.look(job.id).state == RUNNING
        assert stand.story(job.id) == [QUEUED, RUNNING]

    def test_a_late_writer_is_refused_and_changes_nothing(self, stand: Stand) -> None:
        late = stand.running()
        stand.again(late, spent=False)
        held = stand.claim_one()
        step = StepRecord(name="a", state="succeeded", attempts=1)
        before = stand.events(late.id)
        assert not stand.end(late, steps=[step])
        assert not stand.again(late, steps=[step])
        assert stand.store.write([Progress(id=late.id, claim=late.claim, steps=[step])]) == [False]
        assert stand.look(late.id).state == RUNNING
        assert stand.steps(late.id) == {}
        assert stand.events(late.id) == before
        assert stand.end(held)
        assert not stand.end(held)
        assert stand.look(late.id).attempts == 1

    def test_one_refusal_does_not_hold_up_the_others(self, stand: Stand) -> None:
        jobs = [stand.running() for _ in range(3)]
        stand.again(jobs[1])
        writes = [Ended(id=job.id, claim=1, state=SUCCEEDED, worker="w") for job in jobs]
        assert stand.store.write(writes) == [True, False, True]
        assert stand.store.write([]) == []

    def test_several_writes_of_one_job_in_one_round(self, stand: Stand) -> None:
        job = stand.running()
        began = StepRecord(name="a", state="running", attempts=1)
        other = StepRecord(name="b", state="succeeded", attempts=1, result=2)
        ended = StepRecord(name="a", state="succeeded", attempts=1, result=1)
        writes: list[Write] = [
            Progress(id=job.id, claim=1, steps=[began]),
            Progress(id=job.id, claim=1, steps=[other]),
            Ended(id=job.id, claim=1, state=SUCCEEDED, worker="w", steps=[ended]),
            Progress(id=job.id, claim=1, steps=[began]),
            Again(id=job.id, claim=1, worker="w"),
        ]
        assert stand.store.write(writes) == [True, True, True, False, False]
        assert stand.look(job.id).state == SUCCEEDED
        assert stand.steps(job.id) == {"a": ended, "b": other}
        assert stand.story(job.id) == [QUEUED, RUNNING, SUCCEEDED]

    @pytest.mark.parametrize(
        "value", ["x\0y", float("inf"), "\udfff", {1, 2}], ids=["nul", "inf", "half", "no json"]
    )
    def test_a_result_that_no_database_keeps_ends_its_job_alone(self, stand: Stand, value) -> None:
        bad, good = stand.running(), stand.running()
        writes = [
            Ended(id=bad.id, claim=1, state=SUCCEEDED, worker="w", result={"v": value}),
            Ended(id=good.id, claim=1, state=SUCCEEDED, worker="w", result={"v": 1}),
        ]
        assert stand.store.write(writes) == [False, True]
        job = stand.look(bad.id)
        assert (job.state, job.reason, job.result) == (DEAD, "permanent", None)
        assert "cannot be kept" in job.error
        assert stand.look(good.id).state == SUCCEEDED
        assert stand.store.counts() == {stand.one: {DEAD: 1, SUCCEEDED: 1}}

    def test_a_steps_result_that_no_database_keeps_ends_its_job(self, stand: Stand) -> None:
        job = stand.running()
        good = StepRecord(name="a", state="succeeded", result=1)
        bad = StepRecord(name="b", state="succeeded", result="\0")
        assert stand.store.write([Progress(id=job.id, claim=1, steps=[good, bad])]) == [False]
        assert stand.look(job.id).state == DEAD
        steps = stand.steps(job.id)
        assert (steps["a"], steps["b"].state) == (good, "failed")
        assert "NUL" in steps["b"].error

    def test_messages_are_spelled_so_that_they_can_be_kept(self, stand: Stand) -> None:
        job = stand.running()
        assert stand.end(job, DEAD, reason="permanent", error="a\0b \ud800 ü" + "x" * 5000)
        error = stand.look(job.id).error
        assert error.startswith("a\\u0000b \\ud800 üx")
        assert len(error) == 2000


class Runners:
    def test_joining_beating_and_being_looked_at(self, stand: Stand) -> None:
        stand.store.join("r2", host="there", pid=2, process="p")
        assert stand.store.runners() == {"r1": 0, "r2": 0}
        assert stand.store.beat("r1", {"busy": 3})
        stand.store.join("r1", host="here", pid=1)
        assert stand.store.runners() == {"r1": 1, "r2": 0}
        assert not stand.store.beat("r3", {})

    def test_who_leaves_gives_everything_back_and_is_fenced_off(self, stand: Stand) -> None:
        stand.store.join("r2", host="there", pid=2)
        mine, done = stand.running(), stand.running()
        stand.end(done)
        stand.submit()
        theirs = stand.claim_one(runner="r2")
        began = StepRecord(name="a", state="running", attempts=1)
        stand.store.write([Progress(id=mine.id, claim=1, steps=[began])])
        assert stand.store.leave("r1") == 1
        job = stand.look(mine.id)
        assert (job.state, job.attempts, job.runner) == (QUEUED, 0, "")
        assert stand.steps(mine.id)["a"].state == "retrying"
        assert stand.look(theirs.id).runner == "r2"
        assert stand.store.runners() == {"r2": 0}
        assert not stand.end(mine)
        assert stand.store.leave("r1") == 0

    def test_what_a_lost_answer_took_goes_back(self, stand: Stand) -> None:
        known, lost = stand.running(), stand.running()
        assert stand.store.give_back("r1", keep=[known.id]) == 1
        assert stand.look(lost.id).state == QUEUED
        assert (stand.look(lost.id).attempts, stand.look(known.id).state) == (0, RUNNING)
        assert stand.end(known)
        assert stand.store.give_back("r1", keep=[]) == 0

    def test_the_jobs_of_a_dead_runner_are_rescued_once(self, stand: Stand) -> None:
        job = stand.running()
        stand.store.beat("r1", {})
        assert stand.store.rescue("r1", beats=0, lost_at={}) is None
        assert stand.look(job.id).state == RUNNING
        assert stand.store.rescue("r1", beats=1, lost_at={stand.one: 3}) == 1
        assert stand.store.rescue("r1", beats=1, lost_at={stand.one: 3}) is None
        assert (stand.look(job.id).state, stand.look(job.id).attempts) == (QUEUED, 1)
        assert not stand.end(job)
        assert not stand.store.beat("r1", {})

    def test_a_job_that_kills_its_runners_is_dead_in_the_end(self, stand: Stand) -> None:
        job_id = stand.submit()
        for left in (1, 0):
            stand.store.join("r1", host="here", pid=1)
            stand.claim_one()
            assert stand.store.rescue("r1", beats=0, lost_at={stand.one: 2}) == 1
            assert stand.look(job_id).state == (QUEUED if left else DEAD)
        job = stand.look(job_id)
        assert (job.reason, job.attempts, job.finished_at) == ("lost", 2, stand.now)
        assert "runner died" in job.error
        assert stand.story(job_id)[-1] == DEAD

    def test_what_was_to_be_cancelled_is_when_its_runner_is_gone(self, stand: Stand) -> None:
        ends = []
        for end in ("leave", "rescue", "again"):
            stand.store.join("r1", host="here", pid=1)
            job = stand.running()
            stand.store.change("cancel", [job.id], by="ann")
            if end == "leave":
                stand.store.leave("r1")
            elif end == "rescue":
                assert stand.store.rescue("r1", beats=0, lost_at={stand.one: 1}) == 1
            else:
                assert stand.again(job)
            ends.append((stand.look(job.id).state, stand.look(job.id).reason))
        assert ends == [(CANCELLED, "asked")] * 3


class Waiting:
    def test_jobs_are_queued_when_their_time_has_come(self, stand: Stand) -> None:
        later = stand.submit(run_at=stand.now + timedelta(seconds=20))
        sooner = stand.submit(run_at=stand.now + timedelta(seconds=10))
        assert stand.store.promote() == 0
        stand.clock.advance(10.0)
        assert stand.store.promote() == 1
        assert (stand.look(sooner).state, stand.look(later).state) == (QUEUED, SCHEDULED)
        stand.clock.advance(30.0)
        assert stand.store.promote() == 1
        assert stand.story(later) == [SCHEDULED, QUEUED]
        first, second = stand.claim()
        assert first.id == later
        assert first.waited_s == pytest.approx(20.0)
        assert second.id == sooner
        assert second.waited_s == pytest.approx(30.0)

    def test_no_more_than_asked_for_at_once(self, stand: Stand) -> None:
        for seconds in (3, 1, 2):
            stand.submit(run_at=stand.now + timedelta(seconds=seconds))
        stand.clock.advance(5.0)
        assert stand.store.promote(2) == 2
        assert stand.store.promote(2) == 1

    def test_a_clock_that_was_set_back_does_not_prolong_a_backoff(self, stand: Stand) -> None:
        job = stand.running()
        stand.again(job, delay_s=60.0)
        planned = stand.submit(run_at=stand.now + timedelta(seconds=60))
        was = stand.look(planned).run_at
        stand.clock.advance(-3600.0)
        assert stand.store.pull_back(3600.0) == 1
        assert stand.look(job.id).run_at == stand.now + timedelta(seconds=60)
        assert stand.look(planned).run_at == was
        # Another process saw the same step of the clock.
        assert stand.store.pull_back(3600.0) == 0
        assert stand.look(job.id).run_at == stand.now + timedelta(seconds=60)


class Changing:
    def test_a_job_that_waits_is_cancelled_at_once(self, stand: Stand) -> None:
        queued = stand.submit()
        scheduled = stand.submit(run_at=stand.now + timedelta(seconds=5))
        done = stand.store.change("cancel", [queued, scheduled], by="ann")
        assert {one.state for one in done.values()} == {CANCELLED}
        assert all(one.changed and not one.asked for one in done.values())
        job = stand.look(queued)
        assert (job.state, job.reason, job.finished_at) == (CANCELLED, "asked", stand.now)
        assert stand.events(queued)[-1].text == "cancelled by ann"
        assert stand.claim() == []

    def test_a_job_that_runs_is_its_runners_to_cancel(self, stand: Stand) -> None:
        job, other = stand.running(), stand.running()
        asked = stand.store.change("cancel", [job.id], by="ann")[job.id]
        assert (asked.state, asked.changed, asked.asked) == (RUNNING, True, True)
        again = stand.store.change("cancel", [job.id], by="bob")[job.id]
        assert (again.state, again.changed, again.asked) == (RUNNING, False, True)
        assert stand.store.cancels("r1") == [(job.id, job.claim)]
        assert stand.store.cancels("r2") == []
        assert stand.end(job, CANCELLED, reason="asked")
        assert stand.store.cancels("r1") == []
        assert stand.look(other.id).state == RUNNING

    @pytest.mark.parametrize("state", [SUCCEEDED, DEAD, CANCELLED])
    def test_what_has_ended_is_not_cancelled(self, stand: Stand, state: str) -> None:
        job = stand.running()
        stand.end(job, state, reason="x")
        done = stand.store.change("cancel", [job.id], by="ann")[job.id]
        assert (done.state, done.changed, done.asked) == (state, False, False)
        assert stand.look(job.id).reason == "x"

    @pytest.mark.parametrize("state", [DEAD, CANCELLED])
    def test_what_failed_is_tried_as_often_again(self, stand: Stand, state: str) -> None:
        job = stand.running(deadline_s=1.0)
        steps = [
            StepRecord(name="a", state="succeeded", attempts=1, result=1),
            StepRecord(name="b", state="failed", attempts=3, error="HTTP 404"),
            StepRecord(name="c", state="skipped"),
        ]
        stand.end(job, state, reason="permanent", error="HTTP 404", result={}, steps=steps)
        stand.clock.advance(100.0)
        done = stand.store.change("retry", [job.id], by="ann")[job.id]
        assert (done.state, done.changed) == (QUEUED, True)
        row = stand.look(job.id)
        assert (row.state, row.attempts, row.retries, row.reason) == (QUEUED, 0, 1, "")
        assert (row.finished_at, row.result, row.cancel_asked_at) == (None, None, None)
        assert (row.run_at, row.error) == (stand.now, "HTTP 404")
        assert row.deadline_at == stand.now + timedelta(seconds=3600)
        again = stand.claim_one()
        assert again.claim == 2
        states = {name: step.state for name, step in again.steps.items()}
        assert states == {"a": "succeeded", "b": "retrying", "c": "retrying"}

    def test_what_waits_for_its_next_attempt_is_tried_now(self, stand: Stand) -> None:
        job = stand.running()
        stand.again(job, delay_s=600.0)
        planned = stand.submit(run_at=stand.now + timedelta(seconds=600))
        done = stand.store.change("retry", [job.id, planned], by="ann")
        assert (done[job.id].state, done[planned].state) == (QUEUED, QUEUED)
        assert stand.look(planned).run_at == stand.now
        row = stand.look(job.id)
        assert (row.attempts, row.retries, row.run_at) == (1, 0, stand.now)

    def test_what_succeeded_or_goes_on_is_not_tried_again(self, stand: Stand) -> None:
        done, running, queued = stand.running(), stand.running(), stand.submit()
        stand.end(done)
        changed = stand.store.change("retry", [done.id, running.id, queued], by="ann")
        assert [one.changed for one in changed.values()] == [False] * 3

    def test_reprioritising_reaches_what_has_not_ended(self, stand: Stand) -> None:
        first, second, ended = stand.submit(), stand.submit(), stand.submit()
        stand.store.change("cancel", [ended], by="ann")
        args = {"priority": 9}
        done = stand.store.change("reprioritise", [second, ended], by="ann", args=args)
        assert (done[second].changed, done[ended].changed) == (True, False)
        assert stand.story(second) == [QUEUED, QUEUED]
        assert [job.id for job in stand.claim()] == [second, first]
        assert not stand.store.change("reprioritise", [second], by="b", args=args)[second].changed

    @pytest.mark.parametrize("priority", [None, -1, 10, "9"])
    def test_a_priority_that_is_none_is_refused(self, stand: Stand, priority) -> None:
        job = stand.submit()
        with pytest.raises(ValueError, match="A priority is a number from 0 to 9"):
            stand.store.change("reprioritise", [job], by="ann", args={"priority": priority})

    def test_only_what_is_dead_is_discarded_and_that_is_the_end(self, stand: Stand) -> None:
        dead, queued = stand.running(), stand.submit()
        stand.end(dead, DEAD, reason="attempts")
        done = stand.store.change("discard", [dead.id, queued], by="ann")
        assert (done[dead.id].state, done[queued].changed) == (DISCARDED, False)
        assert not stand.store.change("retry", [dead.id], by="ann")[dead.id].changed

    def test_their_words_are_of_the_jobs_attempt_and_of_no_worker(self, stand: Stand) -> None:
        job = stand.running()
        stand.store.change("cancel", [job.id], by="ann")
        stand.end(job, DEAD, reason="permanent")
        stand.store.change("retry", [job.id], by="ann")
        stand.store.change("cancel", [job.id], by="ann")
        words = [event for event in stand.events(job.id) if "ann" in event.text]
        told = [(event.attempt, event.worker) for event in words]
        assert told == [(1, ""), (1, ""), (0, "")]

    def test_ids_that_are_not_there_are_left_out(self, stand: Stand) -> None:
        job = stand.submit()
        other = Draft(type_id=stand.one, payload={}).id
        assert list(stand.store.change("cancel", [other, job, job], by="")) == [job]
        assert stand.events(job)[-1].text == "cancelled by somebody"

    def test_more_than_fit_one_statement(self, stand: Stand) -> None:
        drafts = [Draft(type_id=stand.one, payload={}) for _ in range(1100)]
        stand.store.submit(drafts)
        ids = [draft.id for draft in drafts]
        done = stand.store.change("cancel", ids, by="ann")
        assert set(done) == set(ids)
        assert stand.store.counts() == {stand.one: {CANCELLED: 1100}}


class Counting:
    def test_counts_follow_every_change_folded_or_not(self, stand: Stand) -> None:
        first, second = stand.submit(), stand.submit(stand.two)
        stand.submit(run_at=stand.now + timedelta(seconds=5))
        assert stand.store.counts() == {
            stand.one: {QUEUED: 1, SCHEDULED: 1},
            stand.two: {QUEUED: 1},
        }
        assert stand.store.fold() > 0
        assert stand.store.fold() == 0
        jobs = stand.claim()
        assert {job.id for job in jobs} == {first, second}
        for job in jobs:
            stand.end(job, ran_s=1.5)
        expected = {stand.one: {SCHEDULED: 1, SUCCEEDED: 1}, stand.two: {SUCCEEDED: 1}}
        assert stand.store.counts() == expected == stand.counted()
        stand.store.fold()
        assert stand.store.counts() == expected

    def test_what_ended_long_ago_is_forgotten(self, stand: Stand) -> None:
        old, of_two = stand.running(), stand.running(type_id=stand.two)
        step = StepRecord(name="a", state="succeeded")
        stand.end(old, steps=[step])
        stand.end(of_two)
        stand.clock.advance(100.0)
        dead, new = stand.running(), stand.running()
        stand.end(dead, DEAD, reason="x")
        stand.end(new)
        waiting = stand.submit()
        before = stand.now - timedelta(seconds=50)
        assert stand.store.forget(SUCCEEDED, before, type_id=stand.one, limit=9) == 1
        assert sorted(stand.ids()) == sorted([of_two.id, dead.id, new.id, waiting])
        assert stand.store.forget(SUCCEEDED, before, type_id=None, limit=9) == 1
        assert stand.store.forget(SUCCEEDED, before, type_id=None, limit=9) == 0
        assert stand.store.forget(DEAD, stand.now, type_id=None, limit=9) == 0
        stand.clock.advance(1.0)
        assert stand.store.forget(DEAD, stand.now, type_id=None, limit=9) == 1
        assert stand.store.counts() == {stand.one: {SUCCEEDED: 1, QUEUED: 1}}

    def test_no_more_is_forgotten_at_once_than_asked_for(self, stand: Stand) -> None:
        for _ in range(3):
            stand.end(stand.running())
        stand.clock.advance(1.0)
        assert stand.store.forget(SUCCEEDED, stand.now, type_id=None, limit=2) == 2
        assert stand.store.forget(SUCCEEDED, stand.now, type_id=None, limit=2) == 1

    def test_what_has_not_ended_cannot_be_forgotten(self, stand: Stand) -> None:
        stand.submit()
        with pytest.raises(ValueError, match="have not ended"):
            stand.store.forget(QUEUED, stand.now, type_id=None, limit=9)


class Contract(TakingIn, Claiming, Limits, Writing, Runners, Waiting, Changing, Counting):
    """All of it."""
