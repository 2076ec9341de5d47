"""What steps add up to, against a plain account of what can still happen."""

from __future__ import annotations

from itertools import product

import pytest

from jobs.execution import aggregation
from jobs.states import (
    DEAD,
    STEP_FAILED,
    STEP_RETRYING,
    STEP_RUNNING,
    STEP_SKIPPED,
    STEP_SUCCEEDED,
    SUCCEEDED,
)
from jobs.types.models import ALL, ANY, COLLECT, QUORUM
from tests.jobs.execution.harness import a_type, call, record

STATES = (None, STEP_RUNNING, STEP_RETRYING, STEP_SKIPPED, STEP_SUCCEEDED, STEP_FAILED)
RULES = [(ALL, None), (ANY, None), (COLLECT, None), *((QUORUM, n) for n in (1, 2, 3))]


def suffices(rule: str, quorum: int | None, succeeded: int) -> bool:
    return succeeded >= {ALL: 3, ANY: 1, COLLECT: 1, QUORUM: quorum or 0}[rule]


@pytest.mark.parametrize(("rule", "quorum"), RULES)
def test_three_steps_in_every_state(rule: str, quorum: int | None) -> None:
    spec = a_type(*map(call, "abc"), aggregation=rule, quorum=quorum)
    for states in product(STATES, repeat=3):
        records = {
            name: record(name, state) for name, state in zip("abc", states, strict=True) if state
        }
        succeeded = states.count(STEP_SUCCEEDED)
        may_yet = 3 - states.count(STEP_FAILED) - succeeded
        outcomes = {suffices(rule, quorum, succeeded + more) for more in range(may_yet + 1)}
        # Collect wants all there is: nothing is decided while a step may still bring something.
        undecided = len(outcomes) == 2 or (rule == COLLECT and may_yet)
        expected = None if undecided else SUCCEEDED if outcomes == {True} else DEAD
        assert aggregation.decided(spec, records) == expected, states


@pytest.mark.parametrize("rule", [ALL, ANY, COLLECT])
def test_no_steps_are_a_success(rule: str) -> None:
    assert aggregation.decided(a_type(aggregation=rule), {}) == SUCCEEDED


@pytest.mark.parametrize("quorum", [None, 0, 2, -1])
def test_a_quorum_that_cannot_be_is_an_error(quorum: int | None) -> None:
    with pytest.raises(ValueError, match="onboarding"):
        aggregation.decided(a_type(call("a"), aggregation=QUORUM, quorum=quorum), {})


def test_steps_that_the_type_no_longer_has_do_not_count() -> None:
    records = {"gone": record("gone", STEP_FAILED), "a": record("a", STEP_SUCCEEDED, result=1)}
    spec = a_type(call("a"))
    assert aggregation.decided(spec, records) == SUCCEEDED
    assert aggregation.result(spec, records) == {"steps": {"a": 1}, "failed": {}}
