"""The proof that each acknowledged record is stored once: it must also be able to fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test.utils import CaptureQueriesContext

from ingest.loadtest import verify
from ingest.loadtest.counted import judge_sums, verifier_for
from ingest.loadtest.tally import ACKNOWLEDGED, MAYBE, REFUSED, REJECTED, Tally
from ingest.loadtest.verify import Verifier, judge
from ingest.models import Counter
from tests.commands.clocks import SleepingClock
from tests.commands.stored import store_events, store_logs, store_pings

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def tally_of(*fates, allowed=None):
    return Tally(records=len(fates), fates=bytearray(fates), allowed=allowed or {})


def test_each_once_passes():
    verdict = judge(tally_of(*[ACKNOWLEDGED] * 5), [4, 3, 2, 1, 0])
    assert verdict.passed
    assert verdict.found == verdict.acknowledged == 5


def test_missing_records_are_counted_and_named():
    verdict = judge(tally_of(*[ACKNOWLEDGED] * 20), range(5))
    assert not verdict.passed
    assert verdict.missing == 15
    assert verdict.examples["missing"] == list(range(5, 15))


def test_duplicates_are_counted_once_a_record():
    verdict = judge(tally_of(*[ACKNOWLEDGED] * 3), [0, 1, 1, 1, 2])
    assert (verdict.missing, verdict.duplicates, verdict.spurious) == (0, 1, 0)
    assert verdict.examples["duplicates"] == [1]


@pytest.mark.parametrize("fate", [REFUSED, REJECTED])
def test_a_record_that_was_not_accepted_must_not_be_stored(fate):
    verdict = judge(tally_of(ACKNOWLEDGED, fate), [0, 1])
    assert (verdict.missing, verdict.duplicates, verdict.spurious) == (0, 0, 1)
    assert judge(tally_of(ACKNOWLEDGED, fate), [0]).passed


@pytest.mark.parametrize("sequence", [None, -1, 2, 10**12])
def test_a_number_that_was_never_sent_is_spurious(sequence):
    verdict = judge(tally_of(ACKNOWLEDGED, ACKNOWLEDGED), [0, 1, sequence])
    assert verdict.spurious == 1
    assert not verdict.passed


def test_sent_again_after_a_lost_answer_may_be_stored_as_often_as_it_was_sent():
    fates = (ACKNOWLEDGED, ACKNOWLEDGED, REFUSED)
    verdict = judge(tally_of(*fates, allowed={1: 2, 2: 1}), [0, 1, 1, 2])
    assert verdict.passed
    assert verdict.repeated == 2
    assert not judge(tally_of(*fates, allowed={1: 2}), [0, 1, 1, 1]).passed


def test_a_lost_answer_does_not_excuse_a_missing_record():
    """It was acknowledged at last, so it is owed."""
    verdict = judge(tally_of(ACKNOWLEDGED, allowed={0: 2}), [])
    assert verdict.missing == 1


def test_a_refused_request_whose_answer_was_lost_may_be_missing():
    assert judge(tally_of(REFUSED, allowed={0: 1}), []).passed


def test_a_database_that_holds_some_is_the_right_one():
    assert judge(tally_of(*[ACKNOWLEDGED] * 3), [0]).hint == ""
    assert judge(tally_of(REFUSED), []).hint == ""
    assert "COLLECTOR_DATA_DIR" in judge(tally_of(*[ACKNOWLEDGED] * 3), []).hint


def test_the_database_is_named_without_its_password(monkeypatch):
    class Connection:
        vendor, display_name = "postgresql", "PostgreSQL"
        settings_dict = {
            "NAME": "logs", "HOST": "", "PORT": "", "USER": "me", "PASSWORD": "secret",
            "OPTIONS": {"host": "/run/postgresql", "passfile": "/home/me/.pgpass"},
        }  # fmt: skip

    monkeypatch.setattr(verify, "connections", {"records": Connection})
    assert verify.searched() == "PostgreSQL 'logs' at /run/postgresql:5432"


# -- in the database ----------------------------------------------------------------------------


def payloads(count, *, run="r1", first=0):
    return [{"loadtest_run": run, "loadtest_seq": n} for n in range(first, first + count)]


def verifier(path="/logs", *, clock=None):
    since = int((NOW - timedelta(seconds=1)).timestamp() * 1_000_000)
    return Verifier(path=path, run="r1", since_us=since, clock=clock or SleepingClock())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "store"), [("/logs", store_logs), ("/health", store_pings), ("/event", store_events)]
)
def test_records_are_found_in_the_table_of_their_path(path, store):
    store(NOW, payloads(20))
    verdict = verifier(path).verify(tally_of(*[ACKNOWLEDGED] * 20))
    assert verdict.passed
    assert verdict.found == 20


def count(found, *, run="r1"):
    for part, value in found.items():
        labels = {"loadtest_run": run, "part": str(part)}
        Counter.objects.using("records").create(
            key=f"{run}-{part}", tenant="default", name="loadtest", labels=labels, value=value,
            increments=value, first_at=NOW, last_at=NOW,
        )  # fmt: skip


def counted():
    return verifier_for("/counters")(path="/counters", run="r1", since_us=0, clock=SleepingClock())


@pytest.mark.django_db
def test_increments_are_found_in_their_sums():
    count(dict.fromkeys(range(10), 2))
    count({0: 100}, run="other")
    assert counted().wait_until_stored(20, timeout_s=0, on_progress=lambda _: None) == 0
    verdict = counted().verify(tally_of(*[ACKNOWLEDGED] * 20))
    assert verdict.passed
    assert verdict.found == verdict.acknowledged == 20


@pytest.mark.django_db
def test_a_sum_that_is_wrong_is_found_out():
    count({0: 1, 1: 3})
    verdict = counted().verify(tally_of(*[ACKNOWLEDGED] * 13))
    assert (verdict.missing, verdict.duplicates) == (10, 1)
    assert counted().verify(tally_of(*[REFUSED] * 5)).duplicates == 4


def test_sums_may_hold_what_was_sent_again_and_some_of_what_was_shed():
    again = tally_of(ACKNOWLEDGED, ACKNOWLEDGED, allowed={1: 2})
    assert judge_sums(again, {0: 1, 1: 2}).repeated == 1
    assert judge_sums(again, {0: 2, 1: 1}).duplicates == 1
    shed = tally_of(ACKNOWLEDGED, MAYBE, MAYBE, MAYBE)
    shed.records_accepted = 3
    assert judge_sums(shed, {0: 1, 1: 1, 3: 1}).passed
    assert judge_sums(shed, {0: 1, 2: 1}).missing == 1
    assert judge_sums(shed, {0: 1, 1: 1, 2: 1, 3: 1}).duplicates == 1


@pytest.mark.django_db
def test_other_runs_and_other_payloads_are_not_counted():
    store_logs(NOW, [*payloads(3), *payloads(3, run="other"), {"a": 1}, {"loadtest_run": 5}])
    assert verifier().verify(tally_of(*[ACKNOWLEDGED] * 3)).passed


@pytest.mark.django_db
def test_what_arrived_before_the_run_is_not_read():
    store_logs(NOW - timedelta(days=2), payloads(3))
    verdict = verifier().verify(tally_of(*[ACKNOWLEDGED] * 3))
    assert verdict.missing == 3
    assert verdict.found == 0


@pytest.mark.django_db
def test_a_million_records_would_cost_tens_of_queries(monkeypatch):
    from django.db import connections

    monkeypatch.setattr(verify, "_CHUNK", 10)
    store_logs(NOW, payloads(95))
    with CaptureQueriesContext(connections["records"]) as queries:
        assert verifier().verify(tally_of(*[ACKNOWLEDGED] * 95)).passed
    assert len(queries) == 10


@pytest.mark.django_db
def test_records_that_are_still_on_their_way_are_waited_for():
    batches = iter([payloads(4), payloads(4, first=4), payloads(2, first=8)])

    class Storing(SleepingClock):
        def sleep(self, seconds):
            super().sleep(seconds)
            batch = next(batches)
            store_logs(NOW, batch, first=batch[0]["loadtest_seq"])

    seen: list[int] = []
    clock = Storing()
    waited = verifier(clock=clock).wait_until_stored(10, timeout_s=60, on_progress=seen.append)
    assert seen == [0, 4, 8, 10]
    assert waited == pytest.approx(sum(clock.slept))


@pytest.mark.django_db
def test_waiting_ends_when_nothing_comes_any_more():
    store_logs(NOW, payloads(4))
    clock = SleepingClock()
    verifier(clock=clock).wait_until_stored(10, timeout_s=5, on_progress=lambda _: None)
    assert 5 <= sum(clock.slept) < 6


def test_of_a_request_that_was_shed_in_part_as_many_are_stored_as_were_accepted():
    tally = tally_of(ACKNOWLEDGED, MAYBE, MAYBE, MAYBE)
    tally.records_accepted = 3
    assert judge(tally, [0, 1, 3]).passed
    assert judge(tally, [0, 1, 3]).acknowledged == 3
    assert judge(tally, [0, 2]).missing == 1
    assert judge(tally, [0, 1, 2, 3]).spurious == 1
    assert judge(tally, [0, 1, 1, 2]).duplicates == 1
