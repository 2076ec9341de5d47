"""Group commit: one carries out what all have queued, in their order, and nobody waits in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pipeline.log.groupcommit import Entry, GroupCommit
from tests.pipeline.rig import run_all
from tests.pipeline.support import PATIENCE_S


class Named(Entry):
    def __init__(self, name: Any) -> None:
        super().__init__()
        self.name = name


class Work:
    """Remembers each group; can be held in the middle of one."""

    def __init__(self, *, held: bool = False) -> None:
        self.groups: list[list[Any]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.error: Callable[[], BaseException] | None = None
        self.at_once = 0
        self.most_at_once = 0
        if not held:
            self.go.set()

    def carry_out(self, entries: list[Named]) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.groups.append([entry.name for entry in entries])
        self.entered.set()
        assert self.go.wait(PATIENCE_S)
        self.at_once -= 1
        if self.error is not None:
            raise self.error()


class Told(threading.Condition):
    """Tells of each thread that begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.release()
        return super().wait(timeout)


def begun(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs"


def test_a_lone_entry_is_carried_out_by_its_own_thread() -> None:
    work = Work()
    group: GroupCommit[Named] = GroupCommit(work.carry_out)
    entry = Named("a")
    group.do(entry)
    assert entry.done
    assert entry.error is None
    assert work.groups == [["a"]]


def test_those_who_come_meanwhile_go_together_next() -> None:
    work = Work(held=True)
    group: GroupCommit[Named] = GroupCommit(work.carry_out)
    changed = group._changed = Told()
    leader = begun(lambda: group.do(Named("a")))
    assert work.entered.wait(PATIENCE_S)
    followers = [begun(partial(group.do, Named(name))) for name in "bcd"]
    for _ in followers:
        assert changed.waiting.acquire(timeout=PATIENCE_S)
    work.go.set()
    ended(leader, *followers)
    assert work.groups[0] == ["a"]
    assert sorted(map(str, work.groups[1])) == ["b", "c", "d"]
    assert len(work.groups) == 2


def test_many_threads_lose_nothing_and_never_work_at_once() -> None:
    work = Work()
    group: GroupCommit[Named] = GroupCommit(work.carry_out)

    def run(thread: int) -> None:
        for number in range(200):
            entry = Named((thread, number))
            group.do(entry)
            assert entry.done

    run_all([partial(run, thread) for thread in range(8)])
    done = [name for names in work.groups for name in names]
    assert len(done) == len(set(done)) == 1600
    assert work.most_at_once == 1
    for thread in range(8):
        mine = [number for who, number in done if who == thread]
        assert mine == sorted(mine), "each thread's entries keep their order"


def test_what_is_left_wakes_somebody_only_when_nobody_is_there() -> None:
    work, called = Work(held=True), []
    group: GroupCommit[Named] = GroupCommit(work.carry_out, unwanted=lambda: called.append(1))
    group.leave(Named("a"))
    assert called == [1]
    leader = begun(group.run)
    assert work.entered.wait(PATIENCE_S)
    group.leave(Named("b"))  # the leader is there, and says so when it is done
    assert called == [1]
    work.go.set()
    ended(leader)
    assert called == [1, 1]
    group.run()
    assert work.groups == [["a"], ["b"]]
    group.run()
    assert len(work.groups) == 2


def test_a_follower_takes_what_was_left_with_its_own() -> None:
    work = Work()
    group: GroupCommit[Named] = GroupCommit(work.carry_out)
    group.leave(Named("a"))
    group.do(Named("b"))
    assert work.groups == [["a", "b"]]


def test_flush_waits_for_what_was_queued_before_it() -> None:
    work = Work()
    group: GroupCommit[Named] = GroupCommit(work.carry_out)
    group.flush()
    assert work.groups == []
    entry = Named("a")
    group.leave(entry)
    group.flush()
    assert entry.done
    assert work.groups == [["a"]]


def test_an_error_nobody_thought_of_reaches_all_of_its_group_and_the_next_goes_on() -> None:
    work = Work(held=True)
    work.error = lambda: RuntimeError("nobody thought of this")
    group: GroupCommit[Named] = GroupCommit(work.carry_out)
    first, second = Named("a"), Named("b")
    group.leave(first)
    raised: list[BaseException] = []

    def lead() -> None:
        try:
            group.do(second)
        except RuntimeError as error:
            raised.append(error)

    leader = begun(lead)
    assert work.entered.wait(PATIENCE_S)
    work.go.set()
    ended(leader)
    assert len(raised) == 1
    assert first.done
    assert first.error is second.error is raised[0]
    work.error = None
    group.do(Named("c"))
    assert work.groups[-1] == ["c"]


def test_nothing_is_carried_out_while_somebody_is_alone() -> None:
    work = Work()
    group: GroupCommit[Named] = GroupCommit(work.carry_out)
    inside, go = threading.Event(), threading.Event()

    def alone() -> None:
        inside.set()
        assert go.wait(PATIENCE_S)

    lonely = begun(lambda: group.alone(alone))
    assert inside.wait(PATIENCE_S)
    group.run()
    follower = begun(lambda: group.do(Named("a")))
    other = begun(lambda: group.alone(lambda: None))
    assert work.groups == []
    go.set()
    ended(lonely, follower, other)
    assert work.groups == [["a"]]


def test_being_alone_ends_with_an_error_too() -> None:
    group: GroupCommit[Named] = GroupCommit(Work().carry_out)

    def fail() -> None:
        raise OSError(5, "a disk")

    with pytest.raises(OSError, match="a disk"):
        group.alone(fail)
    group.do(Named("a"))
