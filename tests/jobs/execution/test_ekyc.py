"""The example type, run by a real executor: it ends, and the same user always fares the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from jobs.execution.executor import Executor
from jobs.execution.handlers import Handlers
from jobs.execution.interruption import Interruption
from jobs.states import DEAD, PERMANENT, SUCCEEDED
from jobs.store.protocol import Ended
from jobs.types.example import STEPS
from jobs.types.spec import StepSpec, TypeSpec
from pipeline.runtime.clock import FakeClock
from tests.jobs.execution.harness import Service, a_job

SPEC = TypeSpec(
    id=1,
    name="ekyc-verification",
    steps=tuple(StepSpec(stage=stage, name=name, handler=path) for stage, name, path in STEPS),
)


def verify(payload: Any) -> Ended:
    clock = FakeClock()
    executor = Executor(
        call=Service(), handlers=Handlers(patterns=["jobs.examples.*"]), clock=clock
    )
    done = executor.run(
        a_job(payload=payload),
        SPEC,
        worker="w",
        record=lambda progress, wait: True,
        interruption=Interruption(clock=clock),
    )
    executor.close(0.0)
    assert isinstance(done, Ended)
    return done


def test_the_user_of_the_readme_is_verified() -> None:
    done = verify({"user_id": 456})
    assert done.state == SUCCEEDED
    assert done.result["steps"].keys() == {"document", "face", "sanctions", "decision"}
    assert done.result["steps"]["decision"]["decision"] == "approved"
    assert done.result == verify({"user_id": 456}).result


def test_a_whole_number_may_be_written_as_a_float() -> None:
    """The schema takes 456.0 for an integer, so the job was taken."""
    assert verify({"user_id": 456.0}).result == verify({"user_id": 456}).result
    assert verify({"user_id": 456.5}).state == DEAD


def test_users_fare_differently() -> None:
    decisions = Counter(
        verify({"user_id": user}).result["steps"]["decision"]["decision"] for user in range(200)
    )
    assert decisions.keys() == {"approved", "rejected", "review"}
    assert decisions.most_common(1)[0][0] == "approved"


@pytest.mark.parametrize("payload", [{}, {"user_id": "456"}, {"user_id": True}, [], None], ids=str)
def test_without_a_user_there_is_nothing_to_verify(payload: Any) -> None:
    done = verify(payload)
    assert (done.state, done.reason) == (DEAD, PERMANENT)
    assert "the payload has no user_id" in done.error
