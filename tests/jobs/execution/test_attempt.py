"""One attempt of a job: which steps are called, what is written when, what comes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.downstream.calls import Delayed
from jobs.execution.interruption import CANCEL, DEADLINE, LOST, STOP, Interrupted
from jobs.states import (
    ASKED,
    ATTEMPTS,
    CANCELLED,
    DEAD,
    PERMANENT,
    STEP_FAILED,
    STEP_RETRYING,
    STEP_RUNNING,
    STEP_SKIPPED,
    STEP_SUCCEEDED,
    SUCCEEDED,
)
from jobs.states import DEADLINE as DEADLINE_REASON
from jobs.store.protocol import Again, Ended
from pipeline.errors import PermanentError, RetryableError
from tests.jobs.execution import handled as handlers
from tests.jobs.execution.harness import (
    GENEROUS_S,
    Service,
    a_job,
    a_type,
    bench,
    call,
    handled,
    record,
)


def test_stages_run_in_order_and_each_end_is_kept_before_the_next_step_begins() -> None:
    with bench() as b:
        done = b.run(a_type(call("one"), call("two", stage=2), call("three", stage=3)))
    assert isinstance(done, Ended)
    assert (done.state, done.spent, done.claim) == (SUCCEEDED, True, 7)
    assert b.service.paths == ["/one", "/two", "/three"]
    assert b.written.said() == [
        ("one", STEP_RUNNING, False),
        ("one", STEP_SUCCEEDED, True),
        ("two", STEP_RUNNING, False),
        ("two", STEP_SUCCEEDED, True),
        ("three", STEP_RUNNING, False),
    ]
    # The last one is written with the job's own end.
    assert [(one.name, one.state) for one in done.steps] == [("three", STEP_SUCCEEDED)]
    assert done.result == {
        "steps": {name: {"ok": True} for name in ("one", "two", "three")},
        "failed": {},
    }


def test_a_type_without_steps_succeeds() -> None:
    with bench() as b:
        done = b.run(a_type())
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert b.written.progress == []


def test_each_call_says_whose_it_is_and_keeps_its_token() -> None:
    with bench(Service(one=RetryableError("503"))) as b:
        job = a_job(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        b.run(a_type(call("one", headers={"idempotency-key": "mine", "X-Own": "{job.id}"})), job)
        b.run(a_type(call("one")), a_job(attempts=1, claim=9))
    first, second = b.service.requests
    assert first.headers == {
        "Idempotency-Key": f"{job.id}:one",
        "X-Correlation-ID": "job-123",
        "X-Collector-Job": str(job.id),
        "X-Collector-Attempt": "1",
        "X-Own": str(job.id),
        "traceparent": job.traceparent,
    }
    assert second.headers["Idempotency-Key"] == first.headers["Idempotency-Key"]
    assert second.headers["X-Collector-Attempt"] == "2"


def test_what_succeeded_is_never_called_again() -> None:
    with bench() as b:
        before = {
            "one": record("one", STEP_SUCCEEDED, result=1),
            "two": record("two", STEP_RETRYING, attempts=1, error="503"),
        }
        done = b.run(
            a_type(call("one"), call("two", stage=2, path="/{steps.one.result}")),
            a_job(attempts=1, steps=before),
        )
    assert b.service.paths == ["/1"]
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert b.steps(done)["two"].attempts == 2
    assert b.steps(done)["two"].error == ""


def test_a_rescued_job_whose_steps_had_all_ended_calls_nothing() -> None:
    with bench() as b:
        done = b.run(a_type(call("one")), a_job(steps={"one": record("one", STEP_SUCCEEDED)}))
    assert b.service.paths == []
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED


def test_a_failure_that_may_pass_sends_the_job_back_with_backoff() -> None:
    with bench(Service(one=RetryableError("idv answered 503"))) as b:
        done = b.run(a_type(call("one"), call("two", stage=2)), a_job(attempts=1))
    assert isinstance(done, Again)
    assert (done.spent, done.delay_s) == (True, 2.0)  # the second failure, all of the jitter
    assert done.error == "step one: idv answered 503"
    assert b.service.paths == ["/one"]  # the second stage needs the first
    assert b.steps(done)["one"].state == STEP_RETRYING


def test_a_retry_after_wins_and_is_capped_at_an_hour() -> None:
    for asked_s, low_s, high_s in ((30.0, 30.0, 37.5), (90_000.0, 3600.0, 4500.0)):
        with bench(Service(one=RetryableError("429", retry_after_s=asked_s))) as b:
            done = b.run(a_type(call("one")), a_job(deadline_in_s=1e6))
        assert isinstance(done, Again)
        assert low_s <= done.delay_s <= high_s


def test_a_delay_never_leads_past_the_deadline() -> None:
    with bench(Service(one=RetryableError("429", retry_after_s=600))) as b:
        done = b.run(a_type(call("one")), a_job(deadline_in_s=20.0))
    assert isinstance(done, Again)
    assert done.delay_s == 20.0


def test_a_failure_for_good_ends_the_job_at_once() -> None:
    with bench(Service(one=PermanentError("step one: idv answered 404"))) as b:
        done = b.run(a_type(call("one"), call("two", stage=2)))
    assert isinstance(done, Ended)
    assert (done.state, done.reason, done.spent) == (DEAD, PERMANENT, True)
    assert done.error == "step one: idv answered 404"
    assert done.result == {"steps": {}, "failed": {"one": "idv answered 404"}}
    assert b.service.paths == ["/one"]


def test_the_last_attempt_that_fails_ends_the_job() -> None:
    with bench(Service(one=RetryableError("idv answered 503"))) as b:
        done = b.run(a_type(call("one"), max_attempts=3), a_job(attempts=2))
    assert isinstance(done, Ended)
    assert (done.state, done.reason) == (DEAD, ATTEMPTS)
    assert done.error == "step one: idv answered 503 (attempt 3, the last)"
    assert b.steps(done)["one"].state == STEP_FAILED


def test_what_was_not_called_costs_no_attempt() -> None:
    with bench(Service(two=Delayed(8.0, "its breaker is open"))) as b:
        done = b.run(a_type(call("one"), call("two", stage=2)), a_job(attempts=1))
    assert isinstance(done, Again)
    assert (done.spent, done.error) == (False, "")
    assert 8.0 <= done.delay_s <= 10.0
    assert done.text == "step two: its breaker is open"
    two = b.steps(done)["two"]
    assert (two.state, two.attempts, two.error) == (STEP_RETRYING, 0, "its breaker is open")
    # What succeeded before is kept.
    assert b.steps(done)["one"].state == STEP_SUCCEEDED


def test_a_failure_beside_what_was_not_called_costs_an_attempt() -> None:
    service = Service(one=RetryableError("503"), two=Delayed(8.0, "its breaker is open"))
    with bench(service, step_threads=0) as b:
        done = b.run(a_type(call("one"), call("two")))
    assert isinstance(done, Again)
    assert done.spent
    assert done.delay_s >= 8.0  # both are needed
    assert done.error == "step one: 503"


def test_the_last_attempt_is_not_spent_on_what_could_not_be_called() -> None:
    service = Service(one=RetryableError("503"), two=Delayed(8.0, "its breaker is open"))
    with bench(service, step_threads=0) as b:
        done = b.run(a_type(call("one"), call("two"), aggregation="any"), a_job(attempts=2))
        assert isinstance(done, Again)
        assert not done.spent
        assert b.steps(done)["one"].state == STEP_FAILED
        b.service.acts["/two"] = "at last"
        done = b.run(
            a_type(call("one"), call("two"), aggregation="any"),
            a_job(attempts=2, steps=b.steps(done)),
        )
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert b.service.paths == ["/one", "/two", "/two"]


def test_an_alternative_in_a_later_stage_is_tried_in_the_same_attempt() -> None:
    with bench(Service(first=RetryableError("503"), second="yes")) as b:
        done = b.run(a_type(call("first"), call("second", stage=2), aggregation="any"))
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert done.result["steps"] == {"second": "yes"}
    assert b.steps(done)["first"].state == STEP_SKIPPED


def test_an_alternative_that_needs_what_is_not_there_yet_waits_for_it() -> None:
    with bench(Service(first=RetryableError("503"))) as b:
        second = call("second", stage=2, body={"of": "{steps.first.result}"})
        done = b.run(a_type(call("first"), second, aggregation="quorum", quorum=1))
    assert isinstance(done, Again)
    assert b.service.paths == ["/first"]


def test_collect_takes_what_there_is() -> None:
    service = Service(one="1", two=PermanentError("404"))
    with bench(service, step_threads=0) as b:
        spec = a_type(call("one"), call("two"), call("three", stage=2), aggregation="collect")
        done = b.run(spec)
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert done.result == {"steps": {"one": "1", "three": {"ok": True}}, "failed": {"two": "404"}}
    assert done.text == "2 of 3 steps succeeded, 1 failed"


def test_a_missing_field_names_step_template_and_field() -> None:
    with bench() as b:
        done = b.run(a_type(call("one", path="/users/{payload.user.name}")))
    assert isinstance(done, Ended)
    assert (done.state, done.reason) == (DEAD, PERMANENT)
    assert done.error == (
        "step one: the path '/users/{payload.user.name}' refers to {payload.user.name}, "
        "and the payload has no user"
    )
    assert b.service.requests == []


def test_a_claim_that_was_lost_writes_nothing_more() -> None:
    with bench() as b:
        b.written.fenced_at = 1  # the end of the first step is refused
        done = b.run(a_type(call("one"), call("two", stage=2)))
    assert done is None
    assert b.service.paths == ["/one"]


@pytest.mark.parametrize("step", ["call", "handler"])
@pytest.mark.parametrize("why", [CANCEL, STOP, LOST, DEADLINE])
def test_a_word_from_outside_ends_what_runs(why: str, step: str) -> None:
    def hang(request: object, interruption: object) -> None:
        b.interruption.interrupt(why)
        interruption.wait(1e9)  # type: ignore[attr-defined]

    def answer(request: object, interruption: object) -> str:
        b.interruption.interrupt(why)
        return "1"

    with bench(Service(two=hang)) as b:
        second = call("two", stage=2)
        if step == "handler":
            second = handled("two", "wait_long", stage=2)
            b.service.acts["/one"] = answer
        done = b.run(a_type(call("one"), second))
    if why == LOST:
        assert done is None
        return
    if why == STOP:
        assert isinstance(done, Again)
        assert (done.spent, done.delay_s) == (False, 0.0)
    else:
        assert isinstance(done, Ended)
        state, reason = (CANCELLED, ASKED) if why == CANCEL else (DEAD, DEADLINE_REASON)
        assert (done.state, done.reason) == (state, reason)
        assert done.result["steps"] == {"one": "1" if step == "handler" else {"ok": True}}
    steps = b.steps(done)
    assert steps["one"].state == STEP_SUCCEEDED
    if step == "call":
        states = {CANCEL: STEP_SKIPPED, STOP: STEP_RETRYING, DEADLINE: STEP_FAILED}
        assert steps["two"].state == states[why]


def test_a_stop_respects_a_retry_after() -> None:
    def fail(request: object, interruption: object) -> Exception:
        b.interruption.interrupt(STOP)
        return RetryableError("429", retry_after_s=40)

    with bench(Service(one=fail)) as b:
        done = b.run(a_type(call("one")))
    assert isinstance(done, Again)
    assert not done.spent
    assert done.delay_s >= 40


def test_a_job_that_is_decided_stands_whatever_was_said() -> None:
    def answer(request: object, interruption: object) -> str:
        b.interruption.interrupt(CANCEL)
        return "done"

    with bench(Service(one=answer)) as b:
        done = b.run(a_type(call("one")))
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED


def test_a_job_past_its_deadline_is_dead_without_a_call() -> None:
    with bench() as b:
        before = {"one": record("one", STEP_RETRYING, attempts=2, error="idv answered 503")}
        done = b.run(a_type(call("one")), a_job(deadline_in_s=-1.0, attempts=1, steps=before))
    assert isinstance(done, Ended)
    assert (done.state, done.reason, done.spent) == (DEAD, DEADLINE_REASON, False)
    assert done.error == "its deadline passed; last, step one: idv answered 503"
    assert b.steps(done)["one"].state == STEP_FAILED
    assert b.service.requests == []


def test_the_deadline_counts_from_the_claim_and_bounds_each_call() -> None:
    with bench() as b:
        b.executor.run(
            a_job(deadline_in_s=10.0),
            a_type(call("one")),
            worker="w",
            record=b.written,
            interruption=b.interruption,
            claimed_at=b.clock.monotonic() - 4.0,
        )
    assert b.service.left_s == [6.0]


def test_a_call_that_ends_at_the_deadline_ends_the_job_for_that() -> None:
    def late(request: object, interruption: object) -> Exception:
        b.clock.advance(11.0)  # type: ignore[attr-defined]
        return Interrupted(DEADLINE)

    with bench(Service(one=late)) as b:
        done = b.run(a_type(call("one")), a_job(deadline_in_s=10.0))
    assert isinstance(done, Ended)
    assert (done.state, done.reason) == (DEAD, DEADLINE_REASON)


# --- handlers --------------------------------------------------------------------------------


def test_a_handler_is_told_of_the_job_and_earlier_steps() -> None:
    handlers.seen.clear()
    with bench(Service(one={"score": 3})) as b:
        done = b.run(a_type(call("one"), handled("two", "remember", stage=2)), a_job(attempts=1))
    assert isinstance(done, Ended)
    assert done.result["steps"]["two"] == {
        "token": f"{done.id}:two",
        "attempt": 2,
        "results": {"one": {"score": 3}},
    }
    assert handlers.seen[0].payload == {"user_id": 456}
    assert handlers.seen[0].left_s() == 3600.0


def test_what_a_handler_does_to_its_payload_stays_with_it() -> None:
    with bench(Service(one={"score": 3})) as b:
        done = b.run(
            a_type(
                call("one"),
                handled("two", "spoil", stage=2),
                call("three", stage=3, path="/{payload.user_id}/{steps.one.result.score}"),
            )
        )
    assert isinstance(done, Ended)
    assert b.service.paths == ["/one", "/456/3"]


@pytest.mark.parametrize(
    ("function", "again", "error"),
    [
        ("break_down", True, "step one: KeyError: 'no such thing'"),
        ("not_now", True, "step one: busy"),
        ("leave", True, "let SystemExit out (3)"),
        ("refuse", False, "step one: never"),
        ("odd", False, "its result is not JSON"),
        ("large", False, "more than the 10000 that are kept"),
    ],
)
def test_how_a_handler_fails(function: str, again: bool, error: str) -> None:
    with bench() as b:
        done = b.run(a_type(handled("one", function)))
    assert isinstance(done, Again if again else Ended)
    assert error in done.error


def test_a_handler_that_cannot_be_used_holds_its_jobs() -> None:
    with bench() as b:
        done = b.run(a_type(handled("one", "nothing_like_it")))
    assert isinstance(done, Again)
    assert not done.spent
    assert done.delay_s >= 60
    assert "has no nothing_like_it" in done.text


def test_a_handler_over_its_timeout_is_called_again() -> None:
    with bench() as b, ThreadPoolExecutor(1) as worker:
        running = worker.submit(b.run, a_type(handled("one", "wait_long", timeout_s=5.0)))
        b.clock.await_waiting(1)
        b.clock.advance(5.0)
        done = running.result(GENEROUS_S)
    assert isinstance(done, Again)
    assert done.spent
    assert done.error == "step one: it had not ended within its timeout"


def test_a_handler_that_waits_past_the_deadline_ends_the_job() -> None:
    with bench() as b, ThreadPoolExecutor(1) as worker:
        job = a_job(deadline_in_s=5.0)
        running = worker.submit(b.run, a_type(handled("one", "wait_long")), job)
        b.clock.await_waiting(1)
        b.clock.advance(5.0)
        done = running.result(GENEROUS_S)
    assert isinstance(done, Ended)
    assert (done.state, done.reason) == (DEAD, DEADLINE_REASON)


def test_a_type_written_past_its_checks_holds_its_jobs() -> None:
    with bench() as b:
        done = b.run(a_type(call("one"), aggregation="quorum", quorum=5))
    assert isinstance(done, Again)
    assert not done.spent
    assert "its type cannot be used" in done.text
    assert b.service.requests == []


def test_progress_that_cannot_be_written_is_written_with_the_outcome() -> None:
    def away(progress: object, wait: bool) -> bool:
        raise OSError("away")

    with bench() as b:
        done = b.executor.run(
            a_job(),
            a_type(call("one"), call("two", stage=2)),
            worker="w",
            record=away,
            interruption=b.interruption,
        )
    assert isinstance(done, Ended)
    assert {one.name: one.state for one in done.steps} == {
        "one": STEP_SUCCEEDED,
        "two": STEP_SUCCEEDED,
    }


def test_a_call_says_who_asks() -> None:
    """The guard of a service gives turns by it, and tells whose call opened its breaker."""
    with bench() as b:
        b.run(a_type(call("one")))
    assert [one.asker for one in b.service.requests] == ["step one of onboarding"]
