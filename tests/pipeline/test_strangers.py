"""What an adopting process meets besides sound logs: copies, strangers, gaps, a disk that is full.

On the real disk, with engines; `test_recovery` has the same on a faulty one, frame by frame.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.log.files import LOCK, LogFiles
from pipeline.log.root import orphans
from pipeline.log.segmentfile import path_of
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer
from pipeline.record import Record
from tests.pipeline.faultydisk import FaultyDisk
from tests.pipeline.rig import imbalances, stats_of
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec
from tests.pipeline.test_adoption import Service, Table, adopted_rows, messages


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "wal")
    yield service
    service.end()


def left_behind(service: Service, *, frames: int = 1, nbytes: int = 0) -> tuple[Engine, Path]:
    """An engine that has delivered nothing of `frames` frames of two records, and is gone."""
    engine = service.engine(spec(ScriptedSink(), paused=True))
    for number in range(frames):
        payload = b'"' + b"x" * nbytes + b'"'
        of = [record(f"{number}/{index}", payload=payload) for index in (0, 1)]
        engine.offer(type="log", tenant="t", records=of, durable=True)
    service.abandon(engine)
    return engine, service.root / engine.log_id


def adopting(service: Service, sink: ScriptedSink) -> Engine:
    """An engine that has adopted what there is, and has not begun to deliver."""
    engine = service.engine(spec(sink, max_wait_s=0.0), start=False)
    assert engine.adoption is not None
    engine.adoption.look()
    return engine


def unreadable(engine: Engine) -> dict[str, str]:
    found: dict[str, str] = stats_of(engine)["log"]["unreadable"]
    return found


def contents(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


class TestCopies:
    def test_a_copy_of_a_log_is_refused_and_told_and_nothing_is_stored_twice(
        self, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, directory = left_behind(service)
        copy, named_so = service.root / ("f" * 32), service.root / f"{first.log_id}.bak"
        shutil.copytree(directory, copy)
        shutil.copytree(directory, named_so)
        before = contents(copy)
        table = Table()
        second = adopting(service, table)
        assert [row["log_id"] for row in stats_of(second)["log"]["adopted"]] == [first.log_id]
        assert unreadable(second).keys() == {copy.name}
        assert f"it is the log {first.log_id} under another name" in unreadable(second)[copy.name]
        second.start()
        service.await_finished(first, second)
        assert second.adoption is not None
        second.adoption.look()
        assert caplog.text.count("under another name") == 1
        assert table.stored == Counter({"0/0": 1, "0/1": 1})
        assert contents(copy) == before == contents(named_so)

    def test_so_is_one_whose_state_is_gone_by_what_its_segments_say(self, service: Service) -> None:
        first, directory = left_behind(service)
        copy = service.root / ("f" * 32)
        shutil.copytree(directory, copy)
        for slot in (0, 1):
            (copy / f"checkpoint.{slot}").unlink()
        before = contents(copy)
        second = adopting(service, Table())
        assert f"belongs to the log {first.log_id}" in unreadable(second)[copy.name]
        assert contents(copy) == before


class TestStrangers:
    def test_directories_of_others_are_neither_adopted_nor_touched(self, service: Service) -> None:
        first, _ = left_behind(service)
        for name in ("lost+found", "notes", "\u00ff weird", "2026-11-22.tar"):
            (service.root / name).mkdir()
            (service.root / name / "precious.txt").write_text("mine")
        (service.root / "lost+found" / LOCK).touch()
        (service.root / "locked").mkdir()
        (service.root / "locked" / LOCK).mkdir()
        second = adopting(service, Table())
        assert unreadable(second) == {}
        second.start()
        service.await_finished(first, second)
        assert second.stop(PATIENCE_S)
        assert {path.name for path in service.root.iterdir()} == {
            "lost+found",
            "notes",
            "\u00ff weird",
            "2026-11-22.tar",
            "locked",
        }
        for path in service.root.glob("*/precious.txt"):
            assert path.read_text() == "mine"
        assert len(list(service.root.glob("*/precious.txt"))) == 4

    def test_of_a_settled_log_only_its_own_files_are_deleted(
        self, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, directory = left_behind(service)
        (directory / "notes.txt").write_text("mine")
        (directory / "segment-of-mine.seg").write_text("mine")
        table = Table()
        second = adopting(service, table)
        second.start()
        table.await_stored(2)
        signals = service.signals[-1]
        signals.wait_for(lambda s: not (directory / LOCK).exists(), timeout_s=PATIENCE_S)
        assert contents(directory) == {"notes.txt": 4, "segment-of-mine.seg": 4}
        assert f"{directory} cannot be removed" in caplog.text
        assert second.adoption is not None
        assert second.adoption.look() == 0

    @pytest.mark.parametrize("what", ["directory", "pipe", "link"])
    def test_what_is_named_like_a_segment_and_is_none_costs_no_record(
        self, service: Service, what: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, directory = left_behind(service, frames=3)
        odd = path_of(directory, 999)
        if what == "directory":
            odd.mkdir()
        elif what == "pipe":
            os.mkfifo(odd)
        else:
            odd.symlink_to(service.root / "nowhere")
        table = Table()
        second = adopting(service, table)
        assert f"{odd} is no segment file, and is passed over" in caplog.text
        assert unreadable(second) == {}
        second.start()
        table.await_stored(6)
        signals = service.signals[-1]
        signals.wait_for(lambda s: first.log_id in signals.finished, timeout_s=PATIENCE_S)
        assert max(table.stored.values()) == 1
        assert imbalances(second) == {}

    def test_a_lock_that_was_made_anew_is_not_taken_by_who_waited_for_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its owner removes the log, and another process makes a lock of the same name."""
        directory = tmp_path / "a"
        directory.mkdir()
        (directory / LOCK).touch()
        flock = fcntl.flock

        def meanwhile(fd: int, how: int) -> None:
            (directory / LOCK).unlink()
            (directory / LOCK).touch()
            flock(fd, how)

        before = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr("pipeline.log.files.fcntl.flock", meanwhile)
        assert list(orphans(tmp_path)) == []
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_log_that_is_removed_while_it_is_locked_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tmp_path / "a"
        directory.mkdir()
        (directory / LOCK).touch()
        flock = fcntl.flock

        def meanwhile(fd: int, how: int) -> None:
            (directory / LOCK).unlink()
            directory.rmdir()
            flock(fd, how)

        before = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr("pipeline.log.files.fcntl.flock", meanwhile)
        assert list(orphans(tmp_path)) == []
        assert len(os.listdir("/proc/self/fd")) == before


class TestGaps:
    """Frames of two records in many files; what is gone of them is counted and stays told."""

    FRAMES = 24

    def deliver(self, service: Service, first: Engine, second: Engine, table: Table) -> int:
        """Deliver what there is; returns how many records were counted as corrupt, and where."""
        rows = adopted_rows(second)
        assert imbalances(second) == {}
        assert [row["imbalance"] for row in rows if row["imbalance"]] == []
        corrupt = sum(row["dropped"].get("corrupt", 0) for row in rows)
        assert stats_of(second)["log"]["corrupt_records"] == corrupt
        second.start()
        service.await_finished(first, second)
        log = stats_of(second)["log"]
        assert log["adopted"] == []
        assert log["corrupt_records"] == corrupt
        assert max(table.stored.values()) == 1
        return int(corrupt)

    @staticmethod
    def unknown(engine: Engine) -> dict[str, int]:
        rows = [row for row in adopted_rows(engine) if row["sink"] == "(corrupt)"]
        return rows[0]["dropped"] if rows else {}

    @staticmethod
    def files(directory: Path) -> list[Path]:
        used = [p for p in sorted(directory.glob("*.seg")) if b"CLfr" in p.read_bytes()]
        assert len(used) >= 5
        return used

    @pytest.mark.parametrize("which", [[0], [1], [1, 2], [0, 3]])
    def test_segments_that_are_gone_between_sound_ones(
        self, service: Service, which: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        first, directory = left_behind(service, frames=self.FRAMES, nbytes=400)
        files = self.files(directory)
        for index in which:
            files[index].unlink()
        table = Table()
        second = adopting(service, table)
        counted = self.unknown(second)
        assert counted.keys() == {"corrupt"}
        assert (
            f"{counted['corrupt']} records are spoilt, and nobody can tell for which" in caplog.text
        )
        corrupt = self.deliver(service, first, second, table)
        assert corrupt == counted["corrupt"]
        assert corrupt + table.stored.total() == 2 * self.FRAMES

    def test_segments_that_are_cut_to_half_in_the_middle(
        self, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, directory = left_behind(service, frames=self.FRAMES, nbytes=400)
        for path in self.files(directory)[1:3]:
            os.truncate(path, path.stat().st_size // 2)
        table = Table()
        second = adopting(service, table)
        assert self.unknown(second)["corrupt"] > 0
        assert "nobody can tell for which sinks they were" in caplog.text
        corrupt = self.deliver(service, first, second, table)
        assert corrupt + table.stored.total() == 2 * self.FRAMES
        log = stats_of(second)["log"]
        assert log["quarantined_bytes"] > 0, "what was torn is kept, and told after the adoption"
        assert log["corrupt_frames"] + log["torn_frames"] >= 1

    @pytest.mark.parametrize("how", ["deleted", "emptied"])
    def test_a_log_without_a_sound_state_says_so_and_delivers_everything(
        self, service: Service, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, directory = left_behind(service, frames=self.FRAMES)
        for slot in (0, 1):
            path = directory / f"checkpoint.{slot}"
            if how == "deleted":
                path.unlink()
            else:
                path.write_bytes(bytes(path.stat().st_size))
        table = Table()
        second = adopting(service, table)
        assert f"log {first.log_id} has no sound checkpoint" in caplog.text
        assert self.deliver(service, first, second, table) == 0
        assert table.stored.total() == 2 * self.FRAMES


class TestFullDisks:
    @pytest.mark.parametrize("what", ["create", "write", "sync"])
    def test_an_engine_that_cannot_be_made_leaves_nothing_behind(
        self, tmp_path: Path, what: str
    ) -> None:
        disk = FaultyDisk()
        disk.fail(what, errno.ENOSPC)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                Engine(
                    log_id="f" * 32,
                    ids=RecordIds(node=1),
                    log_settings=LogSettings(directory=tmp_path / "wal"),
                    disk=disk,
                )
        assert list((tmp_path / "wal").iterdir()) == []
        assert disk.paths() == []
        assert disk.open_files == 0
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("what", ["open", "rename"])
    def test_nor_does_one_whose_directory_has_no_room_for_a_file(
        self, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = getattr(os, what)

        def full(path: Any, *args: Any, **options: Any) -> Any:
            if what == "rename" or Path(path).name == LOCK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(path, *args, **options)

        settings = LogSettings(directory=tmp_path / "wal")
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(f"pipeline.log.files.os.{what}", full)
            with pytest.raises(OSError, match="No space left"):
                LogFiles.create(log_id="f" * 32, settings=settings, observer=Observer())
        assert list((tmp_path / "wal").iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("what", ["create", "write", "sync", "read"])
    def test_adoptions_that_fail_again_and_again_cost_no_descriptor(
        self, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        disk = FaultyDisk()
        settings = LogSettings(directory=tmp_path / "wal", segment_bytes=4096)

        def engine(log_id: str) -> Engine:
            made = Engine(log_id=log_id, ids=RecordIds(node=1), log_settings=settings, disk=disk)
            made.configure([spec(ScriptedSink(), paused=True)])
            return made

        first = engine("a" * 32)
        offered: list[Record] = records(3)
        first.offer(type="log", tenant="t", records=offered, durable=True)
        second = engine("b" * 32)
        # As a start leaves it that a full disk cut off.
        directory = settings.directory / first.log_id
        disk.unlink(directory / "journal.1")
        first.abandon()
        adoption = second.adoption
        assert adoption is not None
        assert adoption.look() == 1, "sound but for what comes now"
        adoption.close()
        adoption._adopted.clear()
        disk.unlink(directory / "journal.1")
        disk.fail(what, errno.ENOSPC)
        held: set[Any] = set()
        for _ in range(5):
            assert adoption.look() == 0
            held.add((disk.open_files, len(os.listdir("/proc/self/fd"))))
        assert len(held) == 1, "each failure costs descriptors"
        assert caplog.text.count("cannot be read, and waits") == 1
        assert "No space left" in adoption.failed[first.log_id]
        disk.heal()
        assert adoption.look() == 1
        assert adoption.failed == {}
        second.abandon()
        first.abandon()

    @pytest.mark.parametrize("deletable", [True, False])
    def test_segments_that_had_settled_before_the_crash_go_and_hold_up_no_adoption(
        self, service: Service, deletable: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        table = Table()
        first = service.engine(spec(table, max_wait_s=0.0))
        offered = records(3)
        first.offer(type="log", tenant="t", records=offered, durable=True)
        assert first.flush(PATIENCE_S)
        first.journal.checkpoint()
        service.abandon(first)
        directory = service.root / first.log_id
        stale = path_of(directory, 0)
        if deletable:
            stale.write_bytes(path_of(directory, 1).read_bytes())
        else:
            stale.mkdir()  # what cannot be unlinked
        second = adopting(service, table)
        assert stale.exists() != deletable
        told = f"{stale} is not needed any more and cannot be deleted" in caplog.text
        assert told != deletable
        assert unreadable(second) == {}
        assert table.stored == messages(offered)
