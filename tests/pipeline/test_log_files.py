"""A log with files: what memory lets go of is read from them, and they go when nothing waits."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.log.log import End, Log
from pipeline.log.segment import FRAME_COST
from pipeline.log.segmentfile import path_of
from pipeline.record import ERROR, INFO
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from tests.pipeline.faultydisk import Crash, FaultyDisk
from tests.pipeline.lives import SINKS, Held, Life, Store, some_records

MEMORY_FRAMES = 3


class Lives:
    """Processes one after the other, with what they deliver to."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.disk = FaultyDisk()
        self.clock = FakeClock()
        self.stores = {sink: Store() for sink in SINKS}
        self.number = 0
        self.ids = 1
        self.options = options
        self.life = self.next_life()

    def next_life(self, **limits: Any) -> Life:
        self.number += 1
        settings = PipelineSettings(**({"max_records": 4} | limits))
        self.life = Life(
            name=f"{self.number:032x}",
            root=self.root,
            disk=self.disk,
            clock=self.clock,
            settings=settings,
            **self.options,
        )
        self.life.adopt()
        return self.life

    def killed(self, *, power: bool = False, seed: int = 0, **limits: Any) -> Life:
        """The process is killed, or its machine's power cut, and the next one adopts."""
        self.life.let_go()
        self.disk.crash(Random(seed), power=power)
        return self.next_life(**limits)

    def offer(
        self,
        *severities: int,
        sinks: tuple[str, ...] = SINKS,
        tenant: str = "t",
        nbytes: int = 0,
        durable: bool = True,
        key: str = "",
    ) -> list[int]:
        """Append a frame; returns the ids of its records."""
        of = some_records(list(severities or (INFO,)), prefix=str(self.ids), nbytes=nbytes)
        one = self.life.frame(of, set(sinks), tenant=tenant, id_base=self.ids)
        one.key = key
        self.life.log.append(one, durable=durable)
        ids = list(range(self.ids, self.ids + len(of)))
        self.ids += len(of)
        return ids

    def form(self, sink: str = "all", *, held: Held | None = None) -> None:
        assert self.life.form(held or self.life.own, sink)

    def deliver(self, sink: str = "all", *, held: Held | None = None, noted: bool = True) -> None:
        held = held or self.life.own
        assert self.life.deliver(held, sink, 0, self.stores[sink], noted=noted)

    @property
    def adopted(self) -> Held:
        (held,) = self.life.adopted
        return held

    def deliver_all(self) -> None:
        self.life.deliver_all(self.stores)

    def stored(self, sink: str = "all") -> list[int]:
        assert max(self.stores[sink].stored.values(), default=1) == 1
        return sorted(self.stores[sink].stored)

    def segments(self, name: str = "") -> list[str]:
        directory = self.root / (name or self.life.name)
        return [p.name for p in self.disk.paths() if p.suffix == ".seg" and p.parent == directory]

    def dropped(self, held: Held) -> Counter[tuple[str, str]]:
        """Dropped records by sink and reason."""
        count: Counter[tuple[str, str]] = Counter()
        for (sink, _), tally in held.log.ledger.tallies().items():
            for reason, records in tally.dropped.items():
                count[sink, reason] += records
        return count


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.log.segment.FRAMES_PER_SEGMENT", MEMORY_FRAMES)


class TestMemory:
    def test_a_sink_that_lags_reads_everything_once_and_in_order_from_the_files(
        self, lives: Lives
    ) -> None:
        """With next to no memory, while more is appended all the time."""
        offered: list[int] = []
        bound = MEMORY_FRAMES * 2 * (FRAME_COST + 200)
        seen = []
        for turn in range(60):
            offered += lives.offer(INFO, INFO)
            assert lives.life.log.cached_bytes <= bound
            if turn % 3 == 2:
                lives.life.form(lives.life.own, "all")
                for batch in lives.life.own.batches["all"]:
                    seen += [one.id for one in batch.records if one.id not in seen]
            assert lives.life.own.imbalances() == {}
        lives.deliver_all()
        assert seen == offered[: len(seen)]
        assert lives.stored() == offered
        assert lives.stored("optional") == offered
        assert lives.life.log.cached_bytes <= bound

    def test_a_sink_by_severity_finds_its_own_in_the_files(self, lives: Lives) -> None:
        errors: list[int] = []
        for turn in range(30):
            ids = lives.offer(INFO, ERROR if turn % 3 == 0 else INFO, INFO)
            if turn % 3 == 0:
                errors.append(ids[1])
        lives.deliver_all()
        assert lives.stored("errors") == errors

    def test_a_sink_that_keeps_up_reads_from_memory_alone(
        self, lives: Lives, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lives.disk, "read", lambda *args: pytest.fail("nothing is to be read"))
        for _ in range(20):
            lives.offer(sinks=("all",))
            lives.form()
            lives.deliver()
        assert len(lives.stored()) == 20

    def test_what_has_settled_leaves_memory_at_once(self, tmp_path: Path) -> None:
        lives = Lives(tmp_path, cache_bytes=1 << 20)
        for _ in range(10):
            lives.offer(nbytes=1000)
        assert lives.life.log.cached_bytes > 10_000
        lives.deliver_all()
        assert lives.life.log.cached_bytes < 1000

    def test_what_no_file_holds_stays_in_memory(self, lives: Lives) -> None:
        first = lives.offer(durable=False)
        lives.disk.fail("sync", errno.EIO, times=1)
        lives.life.writer.write_queued()
        lives.clock.advance(2.0)
        more = [one for _ in range(10) for one in lives.offer()]
        lives.deliver_all()
        assert lives.stored() == first + more

    def test_a_receipt_is_told_though_its_frame_had_left_memory(self, lives: Lives) -> None:
        of = some_records([INFO], prefix="awaited")
        one = lives.life.frame(of, {"all", "optional"}, tenant="t", id_base=500)
        receipt = one.receipt
        lives.life.log.append(one, durable=True)
        del one
        for _ in range(20):
            lives.offer()
        assert not receipt.done
        lives.form()
        batch = lives.life.own.batches["all"][0] if lives.life.own.batches["all"] else None
        if batch is None:
            lives.form()
            (batch,) = lives.life.own.batches["all"]
        assert batch.parts[0].frame.receipt is receipt

    def test_files_that_cannot_be_read_for_a_moment_cost_nothing(self, lives: Lives) -> None:
        for _ in range(20):
            lives.offer()
        lives.disk.fail("read", errno.EIO, times=1)
        assert lives.life.form(lives.life.own, "all")
        assert not lives.life.form(lives.life.own, "all"), "it waits before it reads again"
        source = lives.life.own.sources["all"]
        assert source.due_s(lives.clock.monotonic(), shutdown=True) == 1.0
        lives.clock.advance(1.0)
        lives.deliver_all()
        assert len(lives.stored()) == 20

    def test_an_optional_sink_that_lags_lets_its_oldest_go_and_says_so(self, lives: Lives) -> None:
        for _ in range(20):
            lives.offer()
        gone: list[int] = []
        while len(gone) < 12:
            ids = lives.life.drop_oldest(lives.life.own)
            if ids:
                gone += ids
            else:
                lives.form("optional")
            assert lives.life.own.imbalances() == {}
        lives.deliver_all()
        assert gone == list(range(1, 13))
        assert lives.stored("optional") == list(range(13, 21))
        assert lives.dropped(lives.life.own)["optional", "backlog"] == 12
        assert lives.stored() == list(range(1, 21))


class TestSpoiltWhileItRuns:
    def test_a_frame_that_is_spoilt_in_its_file_is_dropped_as_corrupt(self, lives: Lives) -> None:
        for _ in range(20):
            lives.offer(INFO, INFO)
        path = path_of(lives.root / lives.life.name, 1)
        at = lives.disk.content(path).index(b"5/0")
        lives.disk.damage(path, at, b"#")
        lives.deliver_all()
        assert lives.life.own.imbalances() == {}
        assert lives.stored() == [n for n in range(1, 41) if n not in (5, 6)]
        dropped = lives.dropped(lives.life.own)
        assert dropped["all", "corrupt"] == dropped["optional", "corrupt"] == 2
        files = lives.life.log.files
        assert files is not None
        assert files.quarantine.stats()["corrupt_frames"] == 1
        kept = [path for path in lives.disk.paths() if path.parent.name == "quarantine"]
        assert len(kept) == 1
        assert b"#/0" in lives.disk.content(kept[0])
        assert lives.life.log.settled

    def test_a_file_that_is_gone_costs_its_records_alone(self, lives: Lives) -> None:
        for _ in range(30):
            lives.offer(nbytes=400)
        numbers = [int(name[8:20]) for name in lives.segments()]
        lives.disk.unlink(path_of(lives.root / lives.life.name, numbers[1]))
        lives.deliver_all()
        assert lives.life.own.imbalances() == {}
        lost = lives.dropped(lives.life.own)["all", "corrupt"]
        assert lost > 0
        assert len(lives.stored()) == 30 - lost


class TestFilesGo:
    def test_a_file_goes_once_every_sink_has_passed_it_and_the_checkpoint_says_so(
        self, lives: Lives
    ) -> None:
        for _ in range(4):
            lives.offer(nbytes=1500, sinks=("all", "optional"))
        first, second = lives.segments()
        for _ in range(4):
            lives.life.form(lives.life.own, "all")
        while lives.life.own.batches["all"]:
            lives.deliver("all")
        lives.life.keep()
        assert first in lives.segments(), "the optional sink has not passed it"
        lives.life.form(lives.life.own, "optional")
        lives.life.form(lives.life.own, "optional")
        while lives.life.own.batches["optional"]:
            lives.deliver("optional")
        assert first in lives.segments(), "no checkpoint says so yet"
        files = lives.life.log.files
        assert files is not None
        assert files.wants_checkpoint
        lives.disk.fail("sync", errno.EIO, times=1)
        with pytest.raises(OSError, match="Input/output"):
            lives.life.log.checkpoint()
        assert first in lives.segments()
        assert files.wants_checkpoint
        lives.life.keep()
        assert first not in lives.segments()
        assert second in lives.segments(), "it is written to still"
        assert not files.wants_checkpoint

    def test_a_file_that_cannot_be_deleted_is_told_and_found_by_the_next_process(
        self, lives: Lives, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            lives.offer(nbytes=1500)
        lives.deliver_all()
        name = lives.life.name
        lives.disk.fail("unlink", errno.EACCES, times=1)
        lives.life.log.checkpoint()
        assert "cannot be deleted" in caplog.text
        before = lives.segments(name)
        lives.offer()
        lives.killed()
        assert len(lives.segments(name)) < len(before) + 1
        lives.deliver_all()
        assert lives.stored() == [1, 2, 3, 4]

    def test_a_keyed_frame_stays_until_its_key_is_recorded(self, lives: Lives) -> None:
        lives.offer(nbytes=3000, key="claim-1")
        lives.offer(nbytes=3000)
        lives.deliver_all()
        lives.life.log.checkpoint()
        (first, *_) = kept = lives.segments()
        assert first.endswith("1.seg")
        assert not lives.life.log.settled
        lives.life.log.key_recorded("claim-1")
        lives.life.log.key_recorded("claim-1")
        lives.life.log.key_recorded("nobody's")
        lives.life.log.checkpoint()
        assert lives.segments() == kept[1:]
        assert lives.life.log.settled

    def test_a_settled_log_is_removed_with_its_directory(self, lives: Lives) -> None:
        lives.offer()
        lives.deliver_all()
        assert lives.life.log.close()
        assert list(lives.root.iterdir()) == []
        assert lives.disk.open_files == 0
        assert lives.life.log.close()

    def test_a_log_with_something_left_stays(self, lives: Lives) -> None:
        offered = lives.offer()
        assert not lives.life.log.close()
        lives.next_life()
        lives.deliver_all()
        assert lives.stored() == offered

    def test_a_log_is_not_settled_while_a_part_of_a_frame_is_in_no_batch(
        self, lives: Lives
    ) -> None:
        """Of a frame larger than a batch the first part is stored when the process stops."""
        offered = lives.offer(*[INFO] * 6, sinks=("all",))
        lives.form()
        lives.deliver()
        assert not lives.life.log.settled
        assert not lives.life.log.close()
        lives.next_life()
        held = lives.adopted
        lives.form(held=held)
        lives.form(held=held)
        lives.deliver(held=held)
        assert lives.life.finish() == [held]
        assert lives.stored() == offered

    def test_an_adopted_log_is_not_settled_either(self, lives: Lives) -> None:
        offered = lives.offer(*[INFO] * 6, sinks=("all",))
        lives.killed()
        held = lives.adopted
        lives.form(held=held)  # reads
        lives.form(held=held)  # four of six
        lives.deliver(held=held)
        assert lives.life.finish() == []
        lives.deliver_all()
        assert lives.stored() == offered
        assert lives.life.finish() == [held]

    @pytest.mark.parametrize("power", [False, True])
    @pytest.mark.parametrize("points", range(24))
    def test_a_crash_while_a_settled_log_is_removed_stores_nothing_twice(
        self, tmp_path: Path, points: int, power: bool
    ) -> None:
        lives = Lives(tmp_path)
        for _ in range(3):
            lives.offer(INFO, INFO, INFO, nbytes=500)
        lives.form()
        lives.life.form(lives.life.own, "all")
        lives.deliver_all()
        offered = lives.stored()
        lives.disk.crash_after(points)
        try:
            lives.life.log.close()
        except Crash:
            pass
        # Other limits would make other batches of what had been stored.
        lives.killed(power=power, seed=points, max_records=1)
        for held in lives.life.adopted:
            assert lives.dropped(held) == Counter()
        lives.deliver_all()
        assert lives.stored() == offered
        lives.life.finish()
        lives.life.log.close()
        assert [path.name for path in lives.root.iterdir()] == []


def test_a_log_in_memory_has_nothing_to_write() -> None:
    log = Log(log_id="log")
    log.commit(sync=True)
    log.checkpoint()
    log.note_passed()
    assert log.fill(log.cursor("a"), 1) == (Counter(), 0)
    assert log.close()
    log.key_recorded("x")
    log.end_lost("a", [End("t", "corrupt", 0)])
