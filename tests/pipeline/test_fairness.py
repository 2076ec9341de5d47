"""Tenants in turns: who is in the next batch, whatever the others have waiting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batching.fairness import FairQueue
from pipeline.batching.order import TenantOrder
from pipeline.log import cursor
from pipeline.record import Part
from tests.pipeline.support import frame, records, share, weight
from tests.pipeline.test_batcher import Bench

MIB = 1024 * 1024


def counts(parts: list[Part]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for part in parts:
        found[part.tenant] += part.count
    return dict(found)


class Queue(FairQueue):
    """A queue that makes its own frames."""

    position = 0

    def offer(
        self, tenant: str, count: int = 1, *, arrived_s: float = 0.0, overtaken: bool = False
    ) -> None:
        of = records(count)
        owed = share(of)
        made = frame(of, owed, tenant=tenant, arrived_s=arrived_s)
        made.position, self.position = self.position, self.position + 1
        self.add(Part.of_extent(made, owed, 0, count), overtaken=overtaken)


def test_a_hundred_of_each_of_two_come_out_side_by_side() -> None:
    queue = Queue()
    for _ in range(100):
        queue.offer("a")
    for _ in range(100):
        queue.offer("b")
    for _ in range(10):
        parts, closed_by = queue.take(20, MIB)
        assert (counts(parts), closed_by) == ({"a": 10, "b": 10}, "size")
    assert (queue.records, queue.nbytes, queue.held_bytes, len(queue)) == (0, 0, 0, 0)


def test_one_that_floods_among_a_hundred_takes_a_hundredth() -> None:
    queue = Queue()
    for _ in range(20):
        queue.offer("flood", 1_000)
    for number in range(99):
        queue.offer(f"quiet-{number}", 10)
    taken: Counter[str] = Counter()
    for _ in range(2):
        parts, _ = queue.take(1_000, MIB)
        taken.update(counts(parts))
    quiet = [taken[f"quiet-{number}"] for number in range(99)]
    assert min(quiet) == 10, "whoever sends little is served within two batches"
    assert taken["flood"] == 2_000 - 990


def test_a_newcomer_goes_before_those_that_have_more_waiting() -> None:
    queue = Queue()
    for tenant in "abcd":
        queue.offer(tenant, 1_000)
    queue.take(1_000, MIB)
    queue.offer("new", overtaken=True)
    parts, _ = queue.take(10, MIB)
    assert parts[0].tenant == "new"


def test_newcomers_leave_the_others_a_turn() -> None:
    queue = Queue()
    for _ in range(20):
        queue.offer("old", 10)
    for number in range(20):
        queue.offer(f"new-{number}", 10, overtaken=True)
    parts, _ = queue.take(21, MIB)
    assert counts(parts)["old"] >= 1


def test_what_a_large_frame_took_too_much_is_paid_back() -> None:
    queue = Queue()
    for _ in range(50):
        queue.offer("large", 100)
    for _ in range(5_000):
        queue.offer("small", 1)
    taken: Counter[str] = Counter()
    for _ in range(40):
        parts, _ = queue.take(50, MIB)
        taken.update(counts(parts))
    assert abs(taken["large"] - taken["small"]) <= 100


def test_who_sends_one_large_request_after_the_other_gets_no_more_than_its_share() -> None:
    """It has nothing waiting each time it comes, but owes what it took before."""
    queue = Queue()
    for _ in range(100):
        for number in range(10):
            queue.offer(f"other-{number}", 100)
    taken: Counter[str] = Counter()
    for _ in range(60):
        if "greedy" not in queue.tenants:
            queue.offer("greedy", 900, overtaken=True)
        taken.update(counts(queue.take(1_000, MIB)[0]))
    assert taken["greedy"] <= 60_000 // 11 + 2 * 900


def test_a_debt_is_paid_by_waiting() -> None:
    queue = Queue()
    queue.offer("large", 900, overtaken=True)
    queue.take(1_000, MIB)
    for _ in range(10):
        queue.offer("other", 1_000)
        queue.take(1_000, MIB)
    queue.offer("other", 1_000)
    queue.offer("large", 10, overtaken=True)
    assert queue.newcomers, "it has had no part in ten batches"


def test_a_tenants_own_order_is_the_logs() -> None:
    queue = Queue()
    for number in range(30):
        queue.offer("ab"[number % 2], 3)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    while queue.records:
        for part in queue.take(7, MIB)[0]:
            seen[part.tenant] += [one.id for one in part.records]
    assert all(len(ids) == 45 for ids in seen.values())


def test_a_parked_tenant_is_passed_over_and_goes_on_when_released() -> None:
    queue = Queue()
    queue.track_ages(True)
    queue.offer("a", 5, arrived_s=1.0)
    queue.offer("b", 5, arrived_s=2.0)
    queue.park(["a"])
    assert queue.oldest_free_s() == 2.0
    assert queue.oldest_free_tenant() == "b"
    parts, _ = queue.take(100, MIB)
    assert counts(parts) == {"b": 5}
    assert queue.take(100, MIB) == ([], "")
    assert (queue.oldest_free_s(), queue.oldest_s()) == (None, 1.0)
    queue.release(["a"])
    assert queue.oldest_free_s() == 1.0
    assert counts(queue.take(100, MIB)[0]) == {"a": 5}


def test_what_arrives_for_a_parked_tenant_waits_too() -> None:
    queue = Queue()
    queue.park(["a"])
    queue.offer("a", 5)
    assert queue.take(100, MIB) == ([], "")
    queue.release(["a", "never-parked"])
    assert counts(queue.take(100, MIB)[0]) == {"a": 5}


def test_ten_thousand_tenants_at_once_are_all_served_and_forgotten() -> None:
    queue = Queue()
    for number in range(10_000):
        queue.offer(f"t{number}", 2)
    served: Counter[str] = Counter()
    batches = 0
    while queue.records:
        parts, _ = queue.take(1_000, MIB)
        served.update(counts(parts))
        batches += 1
    assert (len(served), set(served.values()), batches) == (10_000, {2}, 20)
    assert len(queue) == 0
    assert not queue._new
    assert not queue._old


def test_the_low_mark_stays_at_what_is_left() -> None:
    queue = Queue()
    queue.offer("a", 4)  # position 0
    queue.offer("b", 4)  # position 1
    assert queue.low(9) == (0, 0)
    queue.park(["a"])
    queue.take(3, MIB)
    assert queue.low(9) == (0, 0), "b was taken of, a not"
    queue.release(["a"])
    queue.take_of("a", 3, MIB)
    assert queue.low(9) == (0, 3)
    queue.take_of("a", 3, MIB)
    assert queue.low(9) == (1, 3)
    queue.take(9, MIB)
    assert queue.low(9) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 40)), max_size=40),
    st.integers(1, 60),
)
def test_nothing_is_lost_doubled_or_out_of_its_tenants_order(
    offers: list[tuple[str, int]], batch: int
) -> None:
    queue = Queue()
    for tenant, count in offers:
        queue.offer(tenant, count)
    seen: dict[str, list[tuple[int, int]]] = {}
    while queue.records:
        parts, _ = queue.take(batch, MIB)
        assert sum(part.count for part in parts) <= batch
        for part in parts:
            extents = [(part.frame.position, part.start + n) for n in range(part.count)]
            seen.setdefault(part.tenant, []).extend(extents)
    assert sum(map(len, seen.values())) == sum(count for _, count in offers)
    assert all(extents == sorted(set(extents)) for extents in seen.values())
    assert (queue.nbytes, queue.held_bytes) == (0, 0)


# --- the batcher with several tenants ----------------------------------------------------------


def test_a_record_that_comes_behind_a_flood_is_in_the_next_batch() -> None:
    bench = Bench(max_records=100)
    for _ in range(500):
        bench.offer(records(20), tenant="flood")
    bench.offer(records(1), tenant="quiet")
    parts, reason = bench.take()
    assert (counts(parts), reason) == ({"quiet": 1}, "turn")
    later = [bench.take() for _ in range(3)]
    assert [(counts(parts), reason) for parts, reason in later] == [({"flood": 100}, "size")] * 3


def test_newcomers_go_by_themselves_once_in_four_batches_and_with_the_others_else() -> None:
    """A sink whose every write takes long would else be kept busy with small ones."""
    bench = Bench(max_records=100)
    for _ in range(500):
        bench.offer(records(20), tenant="flood")
    taken = []
    for number in range(9):
        bench.offer(records(1), tenant=f"quiet-{number}")
        parts, reason = bench.take()
        assert f"quiet-{number}" in counts(parts)
        taken.append(reason)
    assert taken == ["turn", "size", "size", "size"] * 2 + ["turn"]


def test_it_is_so_although_the_flood_is_far_longer_than_what_is_read_ahead() -> None:
    """However long the line is, who has nothing in it does not join it."""
    bench = Bench(max_records=10)
    for _ in range(3_000):
        bench.offer(records(10), tenant="flood")
    bench.take()
    bench.offer(records(1), tenant="quiet")
    assert "quiet" in counts(bench.take()[0])
    assert bench.batcher.waiting_records == 30_000 - 10


def test_what_overtook_is_not_read_again_when_the_line_comes_to_it() -> None:
    bench = Bench(max_records=10)
    for number in range(40):
        bench.offer(records(3), tenant="flood")
        bench.offer(records(1), tenant=f"quiet-{number % 7}")
    taken = [m for messages, _ in bench.take_due(shutdown=True) for m in messages]
    assert len(taken) == len(set(taken)) == 160
    assert bench.batcher.waiting_records == bench.batcher.waiting_bytes == 0


def test_the_books_by_tenant_hold_while_records_overtake() -> None:
    bench = Bench(max_records=10)
    for _ in range(30):
        bench.offer(records(5), tenant="flood")
        bench.offer(records(1), tenant="quiet")
    left = Counter({"flood": 150, "quiet": 30})
    while bench.due() == 0:
        left -= Counter(counts(bench.batcher.take(shutdown=False)[0]))
        with bench.log.lock:
            assert bench.batcher.waiting_by_tenant() == left


@pytest.mark.parametrize("bound", ["OVERTAKING_FRAMES", "OVERTAKING_BYTES"])
def test_so_many_overtake_and_the_others_join_the_line(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in memory beside the line; without a bound, a line that stands would fill it."""
    monkeypatch.setattr(
        cursor, bound, 3 if bound == "OVERTAKING_FRAMES" else 3 * weight(records(1))
    )
    bench = Bench(max_records=1_000)
    bench.offer(records(1), tenant="first")
    for number in range(8):
        bench.offer(records(1), tenant=f"t{number}")
    assert len(bench.log.cursor("a").overtaking) in (3, 4)
    bench.now += 1
    assert sum(counts(bench.take()[0]).values()) == 9


def test_what_was_read_ahead_and_is_in_no_file_is_let_go_with_the_memory() -> None:
    bench = Bench(max_records=10)
    for tenant in ("a", "b"):
        for _ in range(10):
            bench.offer(records(2), tenant=tenant)
    bench.take()
    read_ahead = bench.batcher.waiting_records - bench.log.cursor("a").unread_records
    gone = bench.batcher.take_unlogged()
    assert sum(part.count for part in gone) == read_ahead > 0
    assert bench.log.cursor("a").queued_bytes == 0
    assert bench.batcher.waiting_records == bench.log.cursor("a").unread_records


# --- partitions --------------------------------------------------------------------------------


def test_partitions_never_mix_and_close_by_their_own_size_and_age() -> None:
    bench = Bench(partition_by="tenant", max_records=10)
    bench.offer(records(9), tenant="a")
    bench.offer(records(9), tenant="b")
    assert bench.due() == pytest.approx(0.1), "eighteen wait, and neither has ten"
    bench.offer(records(3), tenant="b")
    parts, reason = bench.take()
    assert (counts(parts), reason) == ({"b": 10}, "size")
    bench.now += 0.06
    bench.offer(records(1), tenant="c")
    bench.now += 0.05
    taken = []
    while bench.due() == 0:
        parts, reason = bench.batcher.take(shutdown=False)
        taken.append((counts(parts), reason))
    assert taken == [({"a": 9}, "time"), ({"b": 2}, "time")]
    assert bench.due() == pytest.approx(0.05), "c came later"
    parts, reason = bench.take(shutdown=True)
    assert (counts(parts), reason) == ({"c": 1}, "shutdown")


def test_a_partition_too_many_sends_the_oldest_early() -> None:
    bench = Bench(partition_by="tenant", max_partitions=3)
    for tenant, count in (("b", 5), ("a", 1), ("c", 2)):
        bench.offer(records(count), tenant=tenant)
        bench.now += 0.001
    assert bench.due() != 0
    bench.offer(records(1), tenant="d")
    parts, reason = bench.take()
    assert (counts(parts), reason) == ({"b": 5}, "partitions")
    assert bench.due() != 0


def test_a_flush_closes_every_partition() -> None:
    bench = Bench(partition_by="tenant")
    for tenant in "abc":
        bench.offer(records(2), tenant=tenant)
    bench.batcher.flush_below(bench.log.next_position)
    taken = []
    while bench.due() == 0:
        parts, reason = bench.batcher.take(shutdown=False)
        taken.append((counts(parts), reason))
    assert taken == [({"a": 2}, "flush"), ({"b": 2}, "flush"), ({"c": 2}, "flush")]


def test_ten_thousand_partitions_fill_and_go() -> None:
    bench = Bench(partition_by="tenant", max_partitions=20_000)
    for number in range(10_000):
        bench.offer(records(1), tenant=f"t{number}")
    bench.now += 0.2
    served = 0
    while bench.due() == 0:
        parts, reason = bench.batcher.take(shutdown=False)
        assert (len(counts(parts)), reason) == (1, "time")
        served += 1
    assert served == 10_000


def test_what_is_held_back_does_not_send_the_others_one_by_one() -> None:
    bench = Bench(ordered=True, max_records=10)
    bench.batcher.park(["a"])
    bench.offer(records(50), tenant="a")
    bench.offer(records(1), tenant="b")
    assert bench.due() == pytest.approx(0.1)
    assert not bench.batcher.full
    bench.offer(records(9), tenant="b")
    parts, reason = bench.take()
    assert (counts(parts), reason) == ({"b": 10}, "size")


# --- order within tenants ----------------------------------------------------------------------


def test_a_later_batch_of_a_tenant_waits_for_the_earlier() -> None:
    order = TenantOrder()
    order.hold("log", 1, {"a": (0, 0), "b": (1, 0)})
    order.hold("log", 2, {"b": (2, 0)})
    order.hold("other", 3, {"a": (9, 0)})
    assert [order.may_go("log", 1), order.may_go("log", 2)] == [True, False]
    assert order.may_go("other", 3), "no order is known between two logs"
    assert sorted(order.held("log")) == ["a", "b"]
    assert order.release("log", 1) == ["a"]
    assert order.may_go("log", 2)
    assert order.release("log", 2) == ["b"]
    assert order.release("log", 2) == []
    assert (order.held("log"), order.held("other")) == ([], ["a"])


def test_what_a_batch_is_cut_into_keeps_its_place() -> None:
    """The halves of a half are numbered after the other half, and go before it."""
    order = TenantOrder()
    order.hold("log", 2, {"a": (0, 0)})
    order.hold("log", 3, {"a": (0, 5)})
    order.hold("log", 4, {"a": (0, 0)})
    order.hold("log", 5, {"a": (0, 2)})
    order.release("log", 2)
    assert [order.may_go("log", n) for n in (3, 4, 5)] == [False, True, False]
    order.release("log", 4)
    assert [order.may_go("log", n) for n in (3, 5)] == [False, True]
