"""Redrives: chunks in order, each sent until something has become of it, stored once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sinks.deadletters import decisions, store, tally, tasks
from sinks.deadletters.runner import Runner
from sinks.deadletters.selection import Selection
from sinks.models import DeadLetter, DeadLetterAction, DeadLetterTally, RedriveTask, SinkConfig
from tests.deadletters.letters import FakeEngine, letters

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_S = 180.0


class Now:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def later(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def sink():
    SinkConfig.objects.all().delete()
    row = SinkConfig.objects.create(name="kept", backend="sinks.backends.memory.MemorySink")
    return str(row.pk)


@pytest.fixture
def runner(engine, now):
    made: list[Runner] = []

    def make(owner: str = "one", engine: FakeEngine = engine) -> Runner:
        made.append(
            Runner(owner=owner, engine=lambda: engine, now=now, renew_s=0.01, retry_s=0.001)
        )
        return made[-1]

    yield make
    engine.hold = False
    for one in made:
        one.stop(WAIT_S)


def run(runner: Callable[..., Runner]) -> None:
    one = runner()
    one.look()
    assert one.join(WAIT_S)


def put(sink: str, count: int, **fields):
    some = letters(count, sink, **fields)
    store.keep(some)
    return some


def states() -> dict[str, int]:
    found: dict[str, int] = {}
    for state in DeadLetter.objects.values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def balanced(sink: str) -> None:
    row = DeadLetterTally.objects.get(pk=sink)
    assert row.imbalance == 0
    assert tally.differences(sink) == {}
    assert row.entered == (row.waiting + row.redriving + row.redriven + row.discarded + row.expired)


def test_all_that_wait_are_sent_in_numbered_chunks(sink, engine, runner, monkeypatch):
    monkeypatch.setattr(tasks, "CHUNK_LETTERS", 100)
    some = put(sink, 250)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    run(runner)
    assert [(one.number, len(one.letters)) for one in engine.sent] == [(1, 100), (2, 100), (3, 50)]
    assert {one.origin for one in engine.sent} == {task.origin}
    assert len(task.origin) <= 64
    assert [one.record_id for one in engine.stored] == [one.record_id for one in some]
    assert [one.payload for one in engine.stored] == [one.payload for one in some]
    task.refresh_from_db()
    assert (task.state, task.stored, task.total, task.finished) == ("done", 250, 250, 250)
    assert states() == {"redriven": 250}
    balanced(sink)
    action = DeadLetterAction.objects.get()
    assert (action.kind, action.who, action.count) == ("redrive", "ann", 250)


def test_a_chunk_is_bounded_by_bytes(sink, engine, runner, monkeypatch):
    monkeypatch.setattr(tasks, "CHUNK_BYTES", 1_000)
    put(sink, 7, payload=b'"' + b"x" * 398 + b'"')
    put(sink, 1, payload=b"y" * 3_000)
    decisions.redrive(Selection(sink=sink), who="ann")
    run(runner)
    assert [len(one.letters) for one in engine.sent] == [2, 2, 2, 1, 1]


def test_the_refused_wait_again_with_the_new_error(sink, engine, runner):
    some = put(sink, 10)
    bad = some[4].record_id
    engine.refuse = lambda one: one.record_id == bad
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    run(runner)
    task.refresh_from_db()
    assert (task.stored, task.refused, task.state) == (9, 1, "done")
    row = DeadLetter.objects.get(state="waiting")
    assert (row.record_id, row.error, row.attempts, row.redrives) == (bad, "refused again", 2, 1)
    assert row.origin == f"{task.origin}-1"
    balanced(sink)


def test_a_chunk_whose_poison_is_not_named_is_halved(sink, engine, runner):
    some = put(sink, 100)
    bad = {some[3].record_id, some[77].record_id}
    engine.refuse = lambda one: one.record_id in bad
    engine.coarse = True
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    run(runner)
    numbers = [one.number for one in engine.sent]
    assert len(numbers) == len(set(numbers)), "each half is a batch with a number of its own"
    assert len(numbers) < 35
    assert sorted(one.record_id for one in engine.stored) == sorted(
        one.record_id for one in some if one.record_id not in bad
    )
    task.refresh_from_db()
    assert (task.stored, task.refused, task.state) == (98, 2, "done")
    balanced(sink)


def test_halves_are_kept_before_they_are_sent(sink, engine, runner, now):
    put(sink, 10)
    decisions.redrive(Selection(sink=sink), who="ann")
    killed = tasks.claim("killed", now=now())
    assert killed is not None
    whole = tasks.next_chunk(killed, now=now())
    assert whole is not None
    tasks.split(killed, whole, now=now())
    first = tasks.next_chunk(killed, now=now())
    now.later(16)
    run(runner)
    assert [(one.number, len(one.letters)) for one in engine.sent] == [(2, 5), (3, 5)]
    assert first is not None
    assert engine.sent[0].letters == first.letters
    assert states() == {"redriven": 10}
    balanced(sink)


def test_a_chunk_that_was_given_up_is_sent_again_as_it_was(sink, engine, runner):
    put(sink, 20)
    engine.give_up = 2
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    run(runner)
    assert [one.number for one in engine.sent] == [1, 1, 1]
    assert engine.sent[0].letters == engine.sent[1].letters == engine.sent[2].letters
    assert len(engine.stored) == 20
    task.refresh_from_db()
    assert (task.already_stored, task.stored, task.state) == (20, 0, "done")
    balanced(sink)


def test_a_redrive_killed_half_way_stores_nothing_twice(sink, engine, runner, now, monkeypatch):
    """The first owner's answers never come back: as of a process that was killed."""
    monkeypatch.setattr(tasks, "CHUNK_LETTERS", 10)
    put(sink, 35)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    first = tasks.claim("killed", now=now())
    assert first is not None
    tasks.settle(
        first, _stored(engine, first, now), stored=10, already_stored=0, refused=(), now=now()
    )
    _stored(engine, first, now)  # sent and stored, and then the process is gone
    assert states() == {"redriven": 10, "redriving": 10, "waiting": 15}
    on_its_way = DeadLetter.objects.filter(state="redriving").values_list("pk", flat=True)[0]
    with pytest.raises(decisions.Refused, match="redriving"):
        decisions.edit(on_its_way, '{"message": "changed"}', who="ann")
    second = runner("second")
    second.look()
    assert second.join(WAIT_S)
    assert len(engine.proofs) == 2, "the lease of the first holds"
    now.later(16)
    second.look()
    assert second.join(WAIT_S)
    assert [one.number for one in engine.sent] == [1, 2, 2, 3, 4]
    ids = [one.record_id for one in engine.stored]
    assert len(ids) == len(set(ids)) == 35
    task.refresh_from_db()
    assert (task.stored, task.already_stored, task.state, task.attempt) == (25, 10, "done", 2)
    balanced(sink)


def _stored(engine: FakeEngine, claim: tasks.Claim, now: Now) -> tasks.Chunk:
    chunk = tasks.next_chunk(claim, now=now())
    assert chunk is not None
    engine.redrive(
        claim.sink,
        origin=claim.origin,
        number=chunk.number,
        letters=chunk.letters,
        on_done=lambda result: None,
    )
    return chunk


def test_an_owner_that_was_taken_for_dead_writes_nothing(sink, engine, now):
    put(sink, 5)
    decisions.redrive(Selection(sink=sink), who="ann")
    old = tasks.claim("old", now=now())
    assert old is not None
    chunk = tasks.next_chunk(old, now=now())
    assert chunk is not None
    assert tasks.claim("new", now=now()) is None
    now.later(16)
    new = tasks.claim("new", now=now())
    assert new is not None
    with pytest.raises(tasks.Fenced):
        tasks.settle(old, chunk, stored=5, already_stored=0, refused=(), now=now())
    with pytest.raises(tasks.Fenced):
        tasks.renew(old, now=now())
    with pytest.raises(tasks.Fenced):
        tasks.next_chunk(old, now=now())
    tasks.release(old)
    assert RedriveTask.objects.get().owner == "new"
    again = tasks.next_chunk(new, now=now())
    assert again == chunk
    for _ in range(2):
        tasks.settle(new, chunk, stored=5, already_stored=0, refused=(), now=now())
    assert states() == {"redriven": 5}
    assert RedriveTask.objects.get().stored == 5
    balanced(sink)


def test_two_processes_do_not_take_one_task(sink, engine, runner, now):
    put(sink, 40)
    decisions.redrive(Selection(sink=sink), who="ann")
    start, claims = threading.Barrier(4), []

    def take(name: str) -> None:
        with store.own_connection():
            start.wait(WAIT_S)
            claims.append(tasks.claim(name, now=now()))

    threads = [threading.Thread(target=take, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sum(claim is not None for claim in claims) == 1


def test_a_stop_lets_go_at_once_and_another_goes_on(sink, engine, runner):
    put(sink, 5)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    engine.hold = True
    first = runner("first")
    first.look()
    assert engine.came.acquire(timeout=WAIT_S)
    assert first.stop(WAIT_S)
    task.refresh_from_db()
    assert (task.owner, task.state) == ("", "running")
    assert states() == {"redriving": 5}
    engine.hold = False
    second = runner("second")
    second.look()
    assert second.join(WAIT_S)
    assert states() == {"redriven": 5}
    assert [one.number for one in engine.sent] == [1, 1]


def test_what_the_engine_tells_at_its_end_is_written_down(sink, engine, runner):
    put(sink, 5)
    decisions.redrive(Selection(sink=sink), who="ann")
    engine.hold = True
    one = runner()
    one.look()
    assert engine.came.acquire(timeout=WAIT_S)
    engine.finish(engine.sent[0])
    assert one.stop(WAIT_S)
    assert states() == {"redriven": 5}
    balanced(sink)


def test_the_lease_is_renewed_while_a_chunk_is_out(sink, engine, runner, now):
    put(sink, 5)
    decisions.redrive(Selection(sink=sink), who="ann")
    engine.hold = True
    one = runner()
    one.look()
    assert engine.came.acquire(timeout=WAIT_S)
    renewed = threading.Event()
    renew = tasks.renew

    def seen(*args, **named):
        renew(*args, **named)
        renewed.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "renew", seen)
        now.later(14)
        assert renewed.wait(WAIT_S)
        renewed.clear()
        assert renewed.wait(WAIT_S)
    now.later(5)
    assert tasks.claim("other", now=now()) is None
    engine.finish(engine.sent[0])
    assert one.join(WAIT_S)
    assert states() == {"redriven": 5}


def test_a_task_waits_for_its_sink_and_says_so(sink, engine, runner):
    put(sink, 5)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    engine.missing = {sink}
    noted = threading.Event()
    renew = tasks.renew

    def seen(*args, **named):
        renew(*args, **named)
        noted.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "renew", seen)
        one = runner()
        one.look()
        assert noted.wait(WAIT_S)
        task.refresh_from_db()
        assert "disabled" in task.note
        engine.missing = set()
        assert one.join(WAIT_S)
    task.refresh_from_db()
    assert (task.state, task.note) == ("done", "")


def test_the_letters_of_a_deleted_sink_wait_again(sink, engine, runner):
    put(sink, 5)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    engine.missing = {sink}
    SinkConfig.objects.all().delete()
    run(runner)
    task.refresh_from_db()
    assert (task.state, task.note) == ("failed", "The sink was deleted.")
    assert states() == {"waiting": 5}
    balanced(sink)


def test_cancel_and_resume(sink, engine, runner, now, monkeypatch):
    monkeypatch.setattr(tasks, "CHUNK_LETTERS", 10)
    put(sink, 25)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    held = tasks.claim("one", now=now())
    assert held is not None
    chunk = tasks.next_chunk(held, now=now())
    assert chunk is not None
    assert "on its way" in tasks.cancel(task.pk, who="bob", now=now())
    tasks.settle(held, chunk, stored=10, already_stored=0, refused=(), now=now())
    assert tasks.next_chunk(held, now=now()) is None
    task.refresh_from_db()
    assert task.state == "cancelled"
    assert states() == {"redriven": 10, "waiting": 15}
    with pytest.raises(decisions.Refused):
        tasks.cancel(task.pk, who="bob", now=now())
    tasks.resume(task.pk, who="bob", now=now())
    run(runner)
    task.refresh_from_db()
    assert (task.state, task.stored) == ("done", 25)
    kinds = list(DeadLetterAction.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["redrive", "cancel", "resume"]
    balanced(sink)


def test_a_task_that_was_not_begun_is_cancelled_at_once(sink, now):
    put(sink, 3)
    (task,) = decisions.redrive(Selection(sink=sink), who="ann")
    assert "cancelled" in tasks.cancel(task.pk, who="ann", now=now())
    assert tasks.claim("one", now=now()) is None
    assert states() == {"waiting": 3}


def test_letters_that_come_later_are_not_part_of_it(sink, engine, runner):
    put(sink, 3)
    decisions.redrive(Selection(sink=sink), who="ann")
    put(sink, 2)
    run(runner)
    assert states() == {"redriven": 3, "waiting": 2}


def test_a_selection_over_two_sinks_is_two_tasks(sink):
    put(sink, 3)
    put("other", 2)
    made = decisions.redrive(Selection(), who="ann")
    assert sorted((one.sink, one.total) for one in made) == sorted([(sink, 3), ("other", 2)])
    ids = tuple(DeadLetter.objects.filter(sink="other").values_list("pk", flat=True))
    (task,) = decisions.redrive(Selection(ids=ids), who="ann")
    assert (task.sink, task.total) == ("other", 2)


def test_a_redrive_without_letters_is_refused(sink):
    with pytest.raises(decisions.Refused, match="nothing to send"):
        decisions.redrive(Selection(sink=sink), who="ann")


def test_a_result_that_does_not_add_up_is_said(sink, engine, runner, caplog):
    put(sink, 3)
    store_all = engine.store
    engine.store = lambda sent: type(store_all(sent))(stored=1)
    decisions.redrive(Selection(sink=sink), who="ann")
    run(runner)
    assert "does not add up" in caplog.text
