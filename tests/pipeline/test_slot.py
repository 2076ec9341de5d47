"""The slot: a sink opened once, changed under running writes, closed by its last user."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from pipeline.delivery.slot import Abandoned, SinkSlot
from pipeline.errors import PermanentError
from tests.pipeline.rig import run_all
from tests.pipeline.support import PATIENCE_S, ScriptedSink


def test_the_sink_is_made_and_opened_by_its_first_use_only() -> None:
    sinks: list[ScriptedSink] = []

    def make() -> ScriptedSink:
        sinks.append(ScriptedSink())
        return sinks[-1]

    slot = SinkSlot(make)
    assert sinks == []
    for _ in range(3):
        with slot.use() as sink:
            assert sink is sinks[0]
    assert (len(sinks), sinks[0].opened, sinks[0].closed) == (1, 1, 0)


@pytest.mark.concurrency
def test_many_first_users_open_the_sink_once() -> None:
    sink = ScriptedSink()
    slot = SinkSlot(lambda: sink)

    def use() -> None:
        with slot.use() as got:
            assert got is sink

    run_all([use] * 8)
    assert sink.opened == 1


def test_an_open_that_fails_is_tried_again_by_the_next_use() -> None:
    class Shy(ScriptedSink):
        def open(self) -> None:
            super().open()
            if self.opened < 3:
                raise OSError("refused")

    sink = Shy()
    slot = SinkSlot(lambda: sink)
    for _ in range(2):
        with pytest.raises(OSError, match="refused"), slot.use():
            raise AssertionError("never entered")
    with slot.use() as got:
        assert got is sink
    assert sink.opened == 3


def test_a_factory_that_fails_is_asked_again() -> None:
    outcomes: list[Exception | ScriptedSink] = [ValueError("no such driver"), ScriptedSink()]

    def make() -> ScriptedSink:
        made = outcomes.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    slot = SinkSlot(make)
    with pytest.raises(ValueError, match="no such driver"), slot.use():
        raise AssertionError("never entered")
    with slot.use():
        assert outcomes == []


def test_a_replaced_sink_is_closed_by_whoever_used_it_last() -> None:
    old, new = ScriptedSink(), ScriptedSink()
    slot = SinkSlot(lambda: old)
    first, second = ExitStack(), ExitStack()
    first.enter_context(slot.use())
    second.enter_context(slot.use())
    slot.replace(lambda: new)
    with slot.use() as got:
        assert got is new
    first.close()
    assert old.closed == 0
    second.close()
    assert (old.closed, new.closed) == (1, 0)


def test_an_idle_replaced_sink_is_closed_at_once_and_an_unopened_one_not_at_all() -> None:
    old, new = ScriptedSink(), ScriptedSink()
    slot = SinkSlot(lambda: old)
    with slot.use():
        pass
    slot.replace(lambda: new)
    assert old.closed == 1
    slot.replace(lambda: old)
    assert (new.opened, new.closed) == (0, 0)


def test_a_slow_open_does_not_hold_up_a_replacement() -> None:
    class Slow(ScriptedSink):
        def __init__(self) -> None:
            super().__init__()
            self.opening, self.go = threading.Event(), threading.Event()

        def open(self) -> None:
            self.opening.set()
            assert self.go.wait(PATIENCE_S)
            super().open()

    slow, new = Slow(), ScriptedSink()
    slot = SinkSlot(lambda: slow)
    done = threading.Event()

    def use() -> None:
        with slot.use() as got:
            assert got is slow
        done.set()

    user = threading.Thread(target=use)
    user.start()
    assert slow.opening.wait(PATIENCE_S)
    slot.replace(lambda: new)
    with slot.use() as got:
        assert got is new
    slow.go.set()
    assert done.wait(PATIENCE_S)
    user.join(PATIENCE_S)
    assert (slow.opened, slow.closed) == (1, 1)


def test_a_closed_slot_makes_a_new_sink_for_a_later_use() -> None:
    sinks: list[ScriptedSink] = []

    def make() -> ScriptedSink:
        sinks.append(ScriptedSink())
        return sinks[-1]

    slot = SinkSlot(make)
    with slot.use():
        pass
    slot.close()
    slot.close()
    assert sinks[0].closed == 1
    with slot.use() as got:
        assert got is sinks[1]


def test_abort_reaches_the_current_sink_and_replaced_ones_still_in_use() -> None:
    old, idle, new = ScriptedSink(), ScriptedSink(), ScriptedSink()
    slot = SinkSlot(lambda: old)
    slot.abort()  # nothing made yet
    with slot.use():
        slot.replace(lambda: idle)
        with slot.use():
            pass
        slot.replace(lambda: new)
        with slot.use():
            slot.abort()
    assert [sink.aborted for sink in (old, idle, new)] == [1, 0, 1]
    slot.abort()
    assert old.aborted == 1


def test_a_sink_whose_abort_or_close_raises_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedSink):
        def abort(self) -> None:
            raise OSError("abort failed")

        def close(self) -> None:
            raise OSError("close failed")

    slot = SinkSlot(Broken)
    with slot.use():
        slot.abort()
    slot.close()
    assert "aborting a sink failed" in caplog.text
    assert "closing a sink failed" in caplog.text


# --- abandoned -----------------------------------------------------------------------------


class Opening(ScriptedSink):
    """A sink whose open hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.opening, self.go = threading.Event(), threading.Event()

    def open(self) -> None:
        self.opening.set()
        assert self.go.wait(PATIENCE_S)
        super().open()


def make_from(*sinks: ScriptedSink) -> SinkSlot:
    """A slot whose factory makes these in turn."""
    left = iter(sinks)
    return SinkSlot(lambda: next(left))


def test_a_hung_write_costs_its_sink_object_and_the_next_write_gets_a_fresh_one() -> None:
    old, new = ScriptedSink(), ScriptedSink()
    slot = make_from(old, new)
    with slot.use("hung") as got:
        assert got is old
        assert slot.abandon("hung")
        old.wait_for(lambda: old.aborted == 1)
        with slot.use("next") as fresh:
            assert fresh is new
        assert old.closed == 0
    assert (old.aborted, old.closed, new.aborted, new.closed) == (1, 1, 0, 0)


def test_a_second_write_that_hangs_in_the_same_object_does_not_cost_the_fresh_one() -> None:
    old, new = ScriptedSink(), ScriptedSink()
    slot = make_from(old, new)
    with slot.use("first"), slot.use("second"):
        slot.abandon("first")
        with slot.use("next") as fresh:
            assert fresh is new
            assert slot.abandon("second")
            with slot.use("another") as got:
                assert got is new
        old.wait_for(lambda: old.aborted == 1)
    assert (old.aborted, new.aborted) == (1, 0)


def test_nothing_is_abandoned_for_one_who_writes_nothing() -> None:
    sink = ScriptedSink()
    slot = SinkSlot(lambda: sink)
    with slot.use("a"):
        assert not slot.abandon("b")
        with slot.use("c") as got:
            assert got is sink
    assert sink.aborted == 0


def test_a_write_into_a_replaced_sink_is_abandoned_without_touching_the_new_one() -> None:
    old, new = ScriptedSink(), ScriptedSink()
    slot = SinkSlot(lambda: old)
    with slot.use("hung"):
        slot.replace(lambda: new)
        with slot.use("next"):
            slot.abandon("hung")
            old.wait_for(lambda: old.aborted == 1)
        with slot.use("next") as got:
            assert got is new
    assert (new.opened, new.aborted) == (1, 0)


def test_an_abort_that_hangs_holds_up_nobody() -> None:
    class Stubborn(ScriptedSink):
        def abort(self) -> None:
            super().abort()
            assert go.wait(PATIENCE_S)
            ended.set()

    go, ended = threading.Event(), threading.Event()
    old, new = Stubborn(), ScriptedSink()
    slot = make_from(old, new)
    with slot.use("hung"):
        slot.abandon("hung")
        old.wait_for(lambda: old.aborted == 1)
        with slot.use("next") as got:
            assert got is new
        assert old.aborted == 1
        assert not ended.is_set()
        go.set()
        assert ended.wait(PATIENCE_S)


def test_the_error_of_a_write_that_was_cut_off_says_so_and_an_answer_stays_an_answer() -> None:
    slot = make_from(*(ScriptedSink() for _ in range(3)))

    def write(error: Exception, *, cut: bool = True) -> None:
        with slot.use("w"):
            if cut:
                slot.abandon("w")
            raise error

    with pytest.raises(Abandoned, match="OSError: socket closed"):
        write(OSError("socket closed"))
    with pytest.raises(PermanentError, match="bad record"):
        write(PermanentError("bad record"))
    with pytest.raises(OSError, match="of itself"):
        write(OSError("of itself"), cut=False)


def test_an_open_that_hangs_is_left_by_those_who_waited_for_it_and_never_written_to() -> None:
    hung, new = Opening(), ScriptedSink()
    slot = make_from(hung, new)
    left: list[str] = []
    changed = threading.Condition()

    def use(name: str) -> None:
        with pytest.raises(Abandoned, match="hung while it was opened"), slot.use(name):
            raise AssertionError("a write reached a sink that was cut off")
        with changed:
            left.append(name)
            changed.notify_all()

    first = threading.Thread(target=use, args=("first",))
    first.start()
    assert hung.opening.wait(PATIENCE_S)
    second = threading.Thread(target=use, args=("second",))
    second.start()
    while not slot.abandon("second"):  # it may not have come to the slot yet
        pass
    with changed:
        assert changed.wait_for(lambda: left == ["second"], PATIENCE_S)
    with slot.use("third") as got:
        assert got is new
    hung.go.set()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    assert left == ["second", "first"]
    assert (hung.opened, hung.closed) == (1, 1)


@pytest.mark.concurrency
def test_replacing_under_many_users_closes_each_sink_once_and_never_in_use() -> None:
    class Guarded(ScriptedSink):
        def __init__(self) -> None:
            super().__init__()
            self.users = 0
            self.lock = threading.Lock()
            made.append(self)

        def close(self) -> None:
            assert self.users == 0, "closed under a write"
            super().close()

    made: list[Guarded] = []
    slot = SinkSlot(Guarded)

    def use() -> None:
        for _ in range(200):
            with slot.use() as sink:
                assert isinstance(sink, Guarded)
                with sink.lock:
                    sink.users += 1
                assert sink.closed == 0
                with sink.lock:
                    sink.users -= 1

    def replace() -> None:
        for _ in range(100):
            slot.replace(Guarded)

    run_all([use, use, use, replace])
    slot.close()
    assert [sink.closed for sink in made] == [1] * len(made)
