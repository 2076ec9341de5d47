"""The writer of segment files: what it acknowledges is on disk, what it refuses stays away."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.errors import LogUnavailable
from pipeline.log.checkpoint import Cut
from pipeline.log.disk import Disk
from pipeline.log.encoding import padded
from pipeline.log.frame import Frame
from pipeline.log.journal import read_journal
from pipeline.log.log import Log
from pipeline.log.scan import FIRST_OFFSET, Found, scan
from pipeline.log.segmentfile import path_of
from pipeline.observer import Observer
from pipeline.record import ERROR, INFO
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from tests.pipeline.faultydisk import Crash, FaultyDisk
from tests.pipeline.lives import Life, some_records
from tests.pipeline.rig import run_all
from tests.pipeline.support import PATIENCE_S


class Heard(Observer):
    def __init__(self) -> None:
        self.syncs: list[tuple[int, int]] = []
        self.failures: list[str] = []

    def log_synced(self, frames: int, nbytes: int, seconds: float) -> None:
        self.syncs.append((frames, nbytes))

    def log_failed(self, error: str) -> None:
        self.failures.append(error)


class Bench:
    """A writer with its log, on a faulty disk."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.disk = FaultyDisk()
        self.clock = FakeClock()
        self.life = Life(
            name="ab" * 16,
            root=root,
            disk=self.disk,
            clock=self.clock,
            settings=PipelineSettings(),
            **options,
        )
        self.writer = self.life.writer
        self.heard = Heard()
        self.writer._observer = self.heard
        self.ids = 1

    @property
    def log(self) -> Log:
        return self.life.log

    @property
    def files(self) -> Any:
        return self.log.files

    def frame(self, *severities: int, nbytes: int = 0, sinks: Sequence[str] = ("all",)) -> Frame:
        of = some_records(list(severities or (INFO,)), prefix=str(self.ids), nbytes=nbytes)
        one = self.life.frame(of, set(sinks), tenant="t", id_base=self.ids)
        self.ids += len(of)
        return one

    def append(self, **options: Any) -> Frame:
        durable = options.pop("durable", True)
        one = self.frame(**options)
        self.log.append(one, durable=durable)
        return one

    def directory(self) -> Path:
        directory: Path = self.files.directory
        return directory

    def on_disk(self) -> list[tuple[int, int]]:
        """The file and the position of each frame that the files hold, in their order."""
        found = []
        for file in self.files.segments.numbers:
            path = path_of(self.directory(), file)
            fd = self.disk.open(path)
            end = self.files.segments.get(file).end
            for one in scan(self.disk, fd, start=FIRST_OFFSET, end=end):
                assert isinstance(one, Found)
                found.append((file, one.header.position))
            self.disk.close(fd)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_durable_frame_is_synced_before_the_append_returns(bench: Bench) -> None:
    one = bench.append()
    assert one.receipt.logged == "wal"
    path = path_of(bench.directory(), one.file)
    bench.disk.crash(Random(1), power=True)
    fd = bench.disk.open(path)
    (found,) = scan(bench.disk, fd, start=FIRST_OFFSET, end=bench.disk.size(fd))
    assert isinstance(found, Found)
    assert found.payload == one.payload
    assert (found.offset, found.header.position) == (one.offset, one.position)
    assert bench.heard.syncs == [(1, found.header.length)]


def test_frames_that_nobody_waits_for_are_written_by_the_keeper(bench: Bench) -> None:
    first, second = bench.append(durable=False), bench.append(durable=False)
    assert bench.writer.unwritten.is_set()
    assert first.receipt.logged == "memory"
    assert bench.log.next_position == 0
    bench.writer.write_queued()
    assert not bench.writer.unwritten.is_set()
    assert [one.receipt.logged for one in (first, second)] == ["wal", "wal"]
    assert bench.on_disk() == [(1, 0), (1, 1)]
    assert bench.heard.syncs[0][0] == 2, "one sync for both"
    assert bench.writer.sync_p99_s >= 0


def test_flush_returns_once_all_that_was_queued_is_written(bench: Bench) -> None:
    bench.append(durable=False)
    bench.writer.flush()
    assert bench.on_disk() == [(1, 0)]


@pytest.mark.parametrize("fsync", ["interval", "never"])
def test_without_group_commit_the_answer_says_that_it_is_not_synced(
    tmp_path: Path, fsync: str
) -> None:
    bench = Bench(tmp_path, fsync=fsync)
    bench.disk.calls.clear()
    one = bench.append()
    assert one.receipt.logged == "wal-unsynced"
    assert bench.disk.calls["sync"] == 0
    bench.writer.sync()
    bench.writer.sync()
    assert bench.disk.calls["sync"] == (fsync == "interval")


def test_a_full_file_is_sealed_and_the_next_taken(bench: Bench) -> None:
    frames = [bench.append(nbytes=1500) for _ in range(5)]
    assert [one.file for one in frames] == [1, 1, 2, 2, 3]
    assert [one.position for one in frames] == [0, 1, 2, 3, 4]
    assert bench.on_disk() == [(1, 0), (1, 1), (2, 2), (2, 3), (3, 4)]
    sealed = [bench.files.segments.get(n).sealed for n in (1, 2, 3)]
    assert sealed == [True, True, False]


def test_a_group_may_span_files(bench: Bench) -> None:
    frames = [bench.append(nbytes=1500, durable=False) for _ in range(5)]
    bench.writer.write_queued()
    assert [one.file for one in frames] == [1, 1, 2, 2, 3]
    assert [number for number, _ in bench.on_disk()] == [1, 1, 2, 2, 3]


def test_a_frame_larger_than_a_file_gets_one_of_its_size(bench: Bench) -> None:
    bench.append()
    large = bench.append(nbytes=20_000)
    after = bench.append()
    assert (large.file, after.file) == (2, 3)
    size = bench.files.segments.get(2).size
    assert 20_000 < size < 21_000
    assert size == padded(size)


def test_the_next_file_is_made_ahead_and_thrown_away_if_it_is_too_small(bench: Bench) -> None:
    bench.writer.prepare()
    made = bench.disk.calls["create"]
    one = bench.append()
    assert bench.disk.calls["create"] == made
    bench.writer.prepare()
    bench.writer.prepare()
    assert bench.disk.calls["create"] == made + 1
    large = bench.append(nbytes=9000)
    assert (one.file, large.file) == (1, 3)
    names = [path.name for path in bench.disk.paths() if path.suffix == ".seg"]
    assert names == [path_of(Path(), n).name for n in (1, 3)]
    assert bench.writer.next_file == 4


def test_files_are_used_in_the_order_of_their_numbers_whoever_makes_them(tmp_path: Path) -> None:
    """The keeper makes the next file while a request makes one: the later one has to be later.

    Files are read in the order of their numbers, and one below `next_file` that is in no
    checkpoint is deleted by a recovery.
    """
    bench = Bench(tmp_path)
    keeper_is_at_it, request_is_at_it = threading.Event(), threading.Event()

    def before(what: str, path: Path | None) -> None:
        if what != "create" or path is None or path.suffix != ".seg":
            return
        if threading.current_thread().name == "keeper":
            keeper_is_at_it.set()
        elif not request_is_at_it.is_set():
            request_is_at_it.set()
            # The keeper gets ahead here, if it can.
            keeper = threading.Thread(target=bench.writer.prepare, name="keeper", daemon=True)
            keeper.start()
            keeper.join(0.2)

    bench.disk.before = before
    frames = [bench.append(nbytes=1500) for _ in range(7)]
    assert request_is_at_it.is_set()
    assert keeper_is_at_it.wait(PATIENCE_S)
    numbers = [one.file for one in frames]
    assert numbers == sorted(numbers)
    assert [position for _, position in bench.on_disk()] == list(range(7))
    assert bench.writer.next_file > numbers[-1]


def test_a_write_that_fails_is_refused_and_the_file_ends_before_it(bench: Bench) -> None:
    kept = bench.append()
    bench.disk.fail("write", errno.EIO, times=1)
    with pytest.raises(LogUnavailable, match="cannot be written") as caught:
        bench.append()
    assert caught.value.retry_after_s > 0
    assert bench.heard.failures == [bench.writer.error]
    assert "Input/output" in bench.writer.error
    assert bench.files.segments.ends == {kept.file: kept.offset + 200} or (
        bench.files.segments.ends[kept.file] > kept.offset
    )
    _, _, entries = read_journal(bench.disk, bench.directory())
    assert [one for one in entries if isinstance(one, Cut)]
    assert bench.log.next_position == 1
    assert (
        len(bench.disk.content(path_of(bench.directory(), kept.file)))
        == (bench.files.segments.ends[kept.file])
    )


def test_while_the_disk_fails_offers_are_refused_without_touching_it(bench: Bench) -> None:
    bench.disk.fail("sync", errno.EIO)
    with pytest.raises(LogUnavailable):
        bench.append()
    calls = bench.disk.calls.total()
    for durable in (True, False):
        with pytest.raises(LogUnavailable):
            bench.append(durable=durable)
    assert bench.disk.calls.total() == calls
    assert bench.files.refusal() is not None
    bench.disk.heal()
    bench.clock.advance(1.0)
    assert bench.files.refusal() is None
    one = bench.append()
    assert one.file == 2, "a file whose sync failed is never used again"
    assert bench.writer.error == ""
    assert bench.files.stats()["state"] == "ok"


def test_a_failed_sync_is_told_to_all_who_wait_for_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first_syncs, go = threading.Event(), threading.Event()

    def before(what: str, path: Path | None) -> None:
        if what == "sync" and not first_syncs.is_set():
            first_syncs.set()
            assert go.wait(PATIENCE_S)

    refused: list[LogUnavailable] = []

    def append() -> None:
        try:
            bench.append()
        except LogUnavailable as error:
            refused.append(error)

    threads = [threading.Thread(target=append, daemon=True) for _ in range(6)]
    bench.disk.fail("sync", errno.EIO)
    bench.disk.before = before
    threads[0].start()
    assert first_syncs.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert len(refused) == 6
    assert bench.log.next_position == 0


def test_what_was_acknowledged_from_memory_stays_there_when_it_cannot_be_written(
    bench: Bench,
) -> None:
    one = bench.append(durable=False)
    bench.disk.fail("sync", errno.EIO, times=1)
    bench.writer.write_queued()
    assert one.receipt.logged == "memory"
    assert (one.file, one.offset) == (-1, -1)
    read = bench.log.read(bench.log.cursor("all"))
    assert read is not None
    assert read[0] is one
    assert bench.on_disk() == []
    bench.clock.advance(1.0)
    after = bench.append()
    assert after.position > one.position


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_as_full_and_heals(bench: Bench, error: int) -> None:
    bench.disk.fail("create", error)
    with pytest.raises(LogUnavailable, match="the log is full"):
        bench.append()
    assert bench.writer.full
    assert bench.files.stats()["state"] == "full"
    bench.disk.heal()
    bench.clock.advance(1.0)
    bench.append()
    assert not bench.writer.full


def test_of_a_group_what_still_fits_is_acknowledged_and_the_rest_refused(bench: Bench) -> None:
    bench.append()
    bench.disk.fail("create", errno.ENOSPC)
    fitting = bench.append(durable=False)
    memory = bench.append(nbytes=4000, durable=False)
    with pytest.raises(LogUnavailable):
        bench.append(nbytes=4000)
    assert fitting.receipt.logged == "wal"
    assert memory.receipt.logged == "memory"
    assert bench.heard.failures == [bench.writer.error]


def test_all_files_together_take_at_most_max_bytes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=3 * 4096)
    frames = [bench.append(nbytes=3500) for _ in range(3)]
    with pytest.raises(LogUnavailable, match="max_bytes"):
        bench.append(nbytes=3500)
    source = bench.life.own.sources["all"]
    batch = source.take(shutdown=True)
    assert batch is not None
    bench.life.own.batches["all"].append(batch)
    assert [part.frame for part in batch.parts] == frames
    bench.life._end(bench.life.own, batch, "stored")
    bench.log.checkpoint()
    bench.clock.advance(1.0)
    assert bench.append(nbytes=3500).file == 4


def test_a_head_that_cannot_be_written_leaves_no_file(bench: Bench) -> None:
    bench.disk.fail("write", errno.EIO, times=1)
    with pytest.raises(LogUnavailable):
        bench.append()
    assert not [path for path in bench.disk.paths() if path.suffix == ".seg"]
    bench.clock.advance(1.0)
    assert bench.append().receipt.logged == "wal"


def test_a_file_that_is_there_already_is_left_alone(bench: Bench) -> None:
    stranger = path_of(bench.directory(), 1)
    bench.disk.close(bench.disk.create(stranger, 10))
    assert bench.append().file == 2
    assert bench.disk.content(stranger) == bytes(10)


def test_an_interval_sync_that_fails_ends_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fsync="interval")
    first = bench.append()
    bench.disk.fail("sync", errno.EIO, times=1)
    bench.writer.sync()
    assert bench.heard.failures
    assert bench.append().file == first.file + 1
    assert bench.files.segments.get(first.file).sealed


def test_sealing_syncs_what_an_interval_has_not_and_a_failure_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, fsync="interval")
    bench.append()
    bench.disk.calls.clear()
    bench.append(nbytes=4000)
    assert bench.disk.calls["sync"] == 1
    bench.disk.fail("sync", errno.EIO, times=1)
    bench.append(nbytes=4000)
    assert "could not be synced" in caplog.text


def test_an_end_that_cannot_be_cut_off_is_noted_all_the_same(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    kept = bench.append()
    bench.disk.fail("sync", errno.EIO, times=1)
    bench.disk.fail("truncate", errno.EIO, times=1)
    with pytest.raises(LogUnavailable):
        bench.append()
    assert "could not be cut off" in caplog.text
    end = bench.files.segments.ends[kept.file]
    bench.disk.crash(Random(0), power=True)
    _, _, entries = read_journal(bench.disk, bench.directory())
    assert [one.end for one in entries if isinstance(one, Cut)] == [end]


def test_a_cut_that_cannot_be_noted_is_told_and_noted_later(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.append()
    bench.disk.fail("sync", errno.EIO)
    with pytest.raises(LogUnavailable):
        bench.append()
    assert "could not be noted" in caplog.text
    bench.disk.heal()
    bench.log.commit(sync=True)
    bench.disk.crash(Random(3), power=True)
    _, checkpoint, entries = read_journal(bench.disk, bench.directory())
    assert checkpoint is not None
    assert checkpoint.ends or [one for one in entries if isinstance(one, Cut)]


def test_a_closed_writer_writes_what_is_queued_and_takes_nothing_more(bench: Bench) -> None:
    bench.writer.prepare()
    bench.append()
    left = bench.append(durable=False)
    bench.writer.prepare()
    bench.writer.close()
    bench.writer.close()
    assert left.receipt.logged == "wal"
    with pytest.raises(LogUnavailable, match="closed"):
        bench.append()
    assert bench.disk.open_files == 4, "the journal's own"
    bench.writer.prepare()
    assert bench.disk.open_files == 4


def test_a_spare_that_cannot_be_removed_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.writer.prepare()
    bench.disk.fail("unlink", errno.EACCES, times=1)
    bench.writer.close()
    assert "could not be removed" in caplog.text


def test_many_requests_at_once_are_all_in_the_files_in_the_order_of_their_positions(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, segment_bytes=8192, cache_bytes=1 << 20)
    stopping = threading.Event()

    def keep() -> None:
        while not stopping.is_set():
            bench.writer.write_queued()
            bench.writer.prepare()

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    acknowledged: list[tuple[int, int, int]] = []

    def offer(start: int) -> None:
        for number in range(60):
            of = some_records([INFO, ERROR], prefix=f"{start}-{number}", nbytes=number * 7)
            one = bench.life.frame(of, {"all"}, tenant="t", id_base=start + number * 2)
            bench.log.append(one, durable=True)
            acknowledged.append((one.position, one.file, one.offset))

    run_all([lambda start=n * 1000 + 1: offer(start) for n in range(6)])  # type: ignore[misc]
    stopping.set()
    keeper.join(PATIENCE_S)
    acknowledged.sort()
    assert [position for position, _, _ in acknowledged] == list(range(360))
    places = [(file, offset) for _, file, offset in acknowledged]
    assert places == sorted(places)
    assert [position for _, position in bench.on_disk()] == list(range(360))


def test_a_writer_without_a_log_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.writer.bind(bench.log.lock, type(bench.writer).__init__.__globals__["_nowhere"])
    with pytest.raises(RuntimeError, match="belongs to no log"):
        bench.append()


class TestTheRealDisk:
    """The few lines that talk to the kernel."""

    def test_a_new_file_has_its_room_and_its_name(self, tmp_path: Path) -> None:
        disk = Disk()
        fd = disk.create(tmp_path / "a", 8192)
        assert disk.size(fd) == 8192
        assert disk.read(fd, 10_000, 0) == bytes(8192)
        assert disk.names(tmp_path) == ["a"]
        with pytest.raises(FileExistsError):
            disk.create(tmp_path / "a", 1)
        disk.truncate(fd, 10)
        disk.sync(fd)
        disk.close(fd)
        disk.rename(tmp_path / "a", tmp_path / "b")
        disk.sync_directory(tmp_path)
        disk.unlink(tmp_path / "b")
        assert disk.names(tmp_path) == []

    def test_a_file_without_room_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(fd: int, offset: int, size: int) -> None:
            raise OSError(errno.ENOSPC, "no room")

        monkeypatch.setattr("os.posix_fallocate", full)
        with pytest.raises(OSError, match="no room"):
            Disk().create(tmp_path / "a", 8192)
        assert list(tmp_path.iterdir()) == []

    def test_more_buffers_than_the_kernel_takes_at_once(self, tmp_path: Path) -> None:
        disk = Disk()
        fd = disk.create(tmp_path / "a", 1)
        buffers = [bytes([n % 256]) * 3 for n in range(2500)]
        assert disk.write(fd, buffers, 5) == 7500
        assert disk.read(fd, 7500, 5) == b"".join(buffers)
        disk.close(fd)
        fd = disk.open(tmp_path / "a")
        with pytest.raises(OSError, match="Bad file"):
            disk.write(fd, [b"x"], 0)
        disk.close(fd)
        fd = disk.open(tmp_path / "a", write=True)
        assert disk.write(fd, [memoryview(b"xy")], 0) == 2
        disk.close(fd)

    def test_short_writes_and_reads_are_gone_on_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import os

        disk = Disk()
        fd = disk.create(tmp_path / "a", 1)
        pwrite, pread = os.pwrite, os.pread
        monkeypatch.setattr("os.pwritev", lambda fd, bufs, at: pwrite(fd, bytes(bufs[0])[:2], at))
        monkeypatch.setattr("os.pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:3], at))
        monkeypatch.setattr("os.pread", lambda fd, n, at: pread(fd, min(n, 4), at))
        assert disk.write(fd, [b"abcdef", b"ghijkl"], 1) == 12
        assert disk.read(fd, 12, 1) == b"abcdefghijkl"
        assert disk.read(fd, 100, 9) == b"ijkl"
        monkeypatch.setattr("os.pwrite", lambda fd, data, at: 0)
        with pytest.raises(OSError, match="nothing was written"):
            disk.write(fd, [b"abcdef", b"ghijkl"], 1)
        disk.close(fd)


def test_a_crash_in_the_middle_is_not_taken_for_an_error(bench: Bench) -> None:
    bench.disk.crash_after(1)
    with pytest.raises(Crash):
        bench.append()
