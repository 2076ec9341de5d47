"""Sinks that want each tenant's records in order: a failing tenant holds back itself alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pipeline.batching import ahead
from pipeline.delivery.breaker import BreakerSettings
from pipeline.errors import PermanentError, RetryableError
from pipeline.record import Batch
from tests.pipeline.rig import Rig
from tests.pipeline.support import ScriptedSink, records, spec


def tenants_of(batch: Batch) -> dict[str, int]:
    found: Counter[str] = Counter()
    for part in batch.parts:
        found[part.tenant] += part.count
    return dict(found)


class Refusing:
    """A step that fails while a batch holds records of one of some tenants."""

    def __init__(self, *tenants: str) -> None:
        self.tenants = set(tenants)

    def __call__(self, batch: Batch) -> None:
        if self.tenants & {part.tenant for part in batch.parts}:
            raise RetryableError("not these")


def stored(sink: ScriptedSink) -> Counter[str]:
    found: Counter[str] = Counter()
    for batch in sink.batches:
        found.update(tenants_of(batch))
    return found


ORDERED: dict[str, Any] = {"ordered": True, "max_records": 10, "max_wait_s": 0.0}


@pytest.mark.parametrize("partition_by", ["", "tenant"])
def test_records_reach_the_sink_in_their_tenants_order_while_others_pass(
    rig: Rig, partition_by: str
) -> None:
    refusing = Refusing("a")
    sink = ScriptedSink(always=refusing)
    rig.start(spec(sink, partition_by=partition_by, max_workers=3, **ORDERED))
    of = records(40)
    for start in range(0, 40, 10):
        rig.offer(of[start : start + 10], tenant="a")
    rig.signals.wait_for(lambda s: len(s.retries) >= 1)
    rig.offer(records(10), tenant="b")
    sink.await_stored(10)
    assert stored(sink) == {"b": 10}
    refusing.tenants.clear()
    rig.clock.advance(2.0)
    sink.await_stored(50)
    of_a = [one.message for batch in sink.batches for p in batch.parts if p.tenant == "a"
            for one in p.records]  # fmt: skip
    assert of_a == [one.message for one in of]


def test_without_it_a_failing_batch_is_passed_by_its_own_tenants_next(rig: Rig) -> None:
    sink = ScriptedSink(RetryableError("once"))
    rig.start(spec(sink, max_records=10, max_wait_s=0.0, max_workers=3))
    of = records(20)
    rig.offer(of[:10], tenant="a")
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.offer(of[10:], tenant="a")
    sink.await_stored(10)
    assert sink.messages[0] == [one.message for one in of[10:]]


def test_as_many_tenants_as_fail_hold_up_no_other(rig: Rig) -> None:
    bad = [f"bad-{number}" for number in range(12)]
    sink = ScriptedSink(always=Refusing(*bad))
    rig.start(
        spec(sink, partition_by="tenant", breaker=BreakerSettings(enabled=False), **ORDERED),
    )
    for tenant in bad:
        rig.offer(records(10), tenant=tenant)
    rig.signals.wait_for(lambda s: len(s.retries) >= len(bad))
    rig.offer(records(10), tenant="good")
    sink.await_stored(10)
    assert stored(sink) == {"good": 10}


def test_a_long_backlog_of_a_tenant_that_fails_holds_up_no_other(rig: Rig) -> None:
    sink = ScriptedSink(always=Refusing("a"))
    rig.start(spec(sink, breaker=BreakerSettings(enabled=False), **ORDERED))
    rig.offer(records(10), tenant="a")
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    for _ in range(100):
        rig.offer(records(10), tenant="a")
    for _ in range(30):
        rig.offer(records(10), tenant="b")
    sink.await_stored(300)
    assert stored(sink) == {"b": 300}


def test_what_is_held_back_does_not_have_everything_after_it_remembered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put into a batch that waits, so that the log can move on; its order is kept."""
    monkeypatch.setattr(ahead, "REMEMBERED_FRAMES", 20)
    refusing = Refusing("a")
    sink = ScriptedSink(always=refusing)
    engine = rig.start(spec(sink, breaker=BreakerSettings(enabled=False), **ORDERED))
    of = records(30)
    for start in (0, 10, 20):
        rig.offer(of[start : start + 10], tenant="a")
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    for number in range(60):
        rig.offer(records(10), tenant="b")
        sink.await_stored(10 * (number + 1))
    (source,) = engine.pipelines[0]._state.backlog.sources
    with engine.pipelines[0].lock:
        assert source.batcher._queue.remembered <= 21
        assert len(engine.journal.manifest.ahead().get("a", {})) <= 21
    refusing.tenants.clear()
    for _ in range(3):
        rig.clock.advance(2.0)
    sink.await_stored(630)
    of_a = [one.message for batch in sink.batches for p in batch.parts if p.tenant == "a"
            for one in p.records]  # fmt: skip
    assert of_a == [one.message for one in of]


def test_the_halves_of_a_batch_keep_their_order(rig: Rig) -> None:
    """A batch is cut in two as one record is refused; the second half waits for the first."""

    def step(batch: Batch) -> None:
        if any(one.message == "poison" for one in batch.records):
            raise PermanentError("that one")

    sink = ScriptedSink(always=step)
    rig.start(spec(sink, max_workers=3, poison_limit=1.0, **ORDERED))
    of = records(10)
    of[3].message = "poison"
    rig.offer(of, tenant="a")
    later = records(10)
    rig.offer(later, tenant="a")
    sink.await_stored(19)
    said = [message for messages in sink.messages for message in messages]
    assert said == [one.message for one in [*of, *later] if one.message != "poison"]


def test_order_can_be_asked_for_while_batches_wait_and_given_up_again(rig: Rig) -> None:
    refusing = Refusing("a")
    sink = ScriptedSink(always=refusing)
    plain: dict[str, Any] = {"max_records": 10, "max_wait_s": 0.0, "max_workers": 2}
    plain["breaker"] = BreakerSettings(enabled=False)
    engine = rig.start(spec(sink, **plain))
    rig.offer(records(10), tenant="a")
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    engine.configure([spec(sink, ordered=True, **plain)])
    rig.offer(records(10), tenant="a")
    rig.offer(records(10), tenant="b")
    sink.await_stored(10)
    assert rig.signals.retries[-1].number == 1, "the second of a was not tried"
    engine.configure([spec(sink, **plain)])
    rig.signals.wait_for(lambda s: len({one.number for one in s.retries}) == 2)
    refusing.tenants.clear()
    rig.clock.advance(2.0)
    sink.await_stored(30)
