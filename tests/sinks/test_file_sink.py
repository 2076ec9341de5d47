"""The file sink: paths, rotation, compression, syncs, faults of the file system."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RetryableError, SinkFault
from pipeline.runtime.clock import FakeClock
from sinks.backends.file import FileOptions, FileSink
from sinks.files.template import PathTemplate, TemplateError, inert
from sinks.options import OptionsError, decode_options
from tests.sinks.contract import WAIT_S, SinkContract
from tests.sinks.records import ARRIVAL_US, batch, batch_of_parts, record, records


def lines(directory: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            text = gzip.decompress(data) if path.suffix == ".gz" else data
            found += [json.loads(line) for line in text.splitlines()]
    return found


def files(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def make(directory: Path, clock: FakeClock | None = None, **options: Any) -> FileSink:
    options = {"directory": str(directory), **options}
    return FileSink(decode_options(FileOptions, options), name="files", clock=clock)


class FileContract(SinkContract):
    options: dict[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path / "out"

    def make(self):
        return make(self.directory, **self.options)

    def stored_ids(self, sink):
        return [int(line["id"]) for line in lines(self.directory)]


class TestFileSink(FileContract):
    pass


class TestFileSinkCompressed(FileContract):
    options = {"compression": "gzip", "fsync": "batch"}


class TestFileSinkManyFiles(FileContract):
    options = {
        "path": "{date}/{hour}/{tenant}/{type}-{service}-{worker}.ndjson",
        "max_open_files": 2,
        "fsync": "never",
    }


class TestFileSinkRotating(FileContract):
    options = {"rotate_bytes": 2_000}


# --- what is written -----------------------------------------------------------------------


def test_an_envelope_carries_what_the_payload_lacks(tmp_path):
    sink = make(tmp_path)
    one = record(b'{"message":"gr\xc3\xbcn",\n "n":1}')
    sink.write(batch([one], tenant="acme", type="event"))
    assert lines(tmp_path) == [
        {
            "id": str(one.id),
            "received_at": "2026-09-21T14:13:20Z",
            "tenant": "acme",
            "type": "event",
            "record": {"message": "grün", "n": 1},
        }
    ]
    assert files(tmp_path) == ["event/2026-09-21.ndjson"]


def test_payloads_alone_are_the_lines_as_sent(tmp_path):
    sink = make(tmp_path, format="payload")
    sink.write(batch([record(b'{"a": 1.10}'), record(b'{\n"b":2}')]))
    assert (tmp_path / "log/2026-09-21.ndjson").read_bytes() == b'{"a": 1.10}\n{ "b":2}\n'


def test_a_file_is_named_by_arrival_and_not_by_what_the_record_says(tmp_path):
    sink = make(tmp_path, path="{date}T{hour}")
    sink.write(
        batch([record({}, timestamp_us=0), record({}, timestamp_us=253_402_300_799_000_000)])
    )
    assert files(tmp_path) == ["2026-09-21T14"]


# --- paths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["../../x", "..", ".", "/etc/passwd", "a/../../b", "\x00", "~root", "a\\..\\b", ".hidden",
     "\n", "", "con" * 200, "%2e%2e%2f", "_other", "é" * 300],
)  # fmt: skip
def test_no_value_leaves_its_directory(tmp_path, value):
    name = inert(value)
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 60
    directory = tmp_path / "in"
    sink = make(directory, path="{tenant}/{service}.ndjson")
    sink.write(batch([record(b"{}", service=value)], tenant="t"))
    found = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(found) == 1
    assert found[0].parent == directory / "t"


def test_different_values_have_different_names():
    values = ["\ud800", "a/b", "a%2Fb", "a_b", "x" * 200, "x" * 201, "A", "a", ".a", "%2Ea"]
    assert len({inert(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/abs/{date}", "relative"),
        ("a//b", "//"),
        ("logs/", "relative"),
        ("../{date}", r"\.\."),
        ("a/./b", "not contain"),
        ("{user}", "not known"),
        ("{date!r}", "not known"),
        ("{date:>90}", "not known"),
        ("{}", "not known"),
        ("{date", "brace"),
        ("a\x1bb", "control"),
        ("a\\b", "backslash"),
        ("x" * 61, "longer"),
        ("{tenant}-{service}-{worker}-{type}", "too long"),
    ],
)
def test_a_wrong_template_says_what_is_wrong(text, words):
    with pytest.raises(TemplateError, match=words):
        PathTemplate(text)


def test_a_wrong_template_is_a_wrong_option():
    with pytest.raises(OptionsError, match="path: must be relative"):
        decode_options(FileOptions, {"path": "/etc/passwd"})


def test_services_beyond_the_limit_share_a_file(tmp_path):
    sink = make(tmp_path, path="{service}.ndjson", max_services=2)
    sink.write(batch([record({}, service=f"s{n}") for n in range(5)]))
    assert files(tmp_path) == ["_other.ndjson", "s0.ndjson", "s1.ndjson"]
    assert len(lines(tmp_path)) == 5


def test_no_more_files_stay_open_than_allowed(tmp_path):
    sink = make(tmp_path, path="{service}.ndjson", max_open_files=3)
    for _ in range(3):
        sink.write(batch([record({}, service=f"s{n}") for n in range(20)]))
    assert len(sink._files) == 3
    here = [os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()]
    assert sum(name.startswith(str(tmp_path)) for name in here) == 3
    assert len(lines(tmp_path)) == 60
    sink.close()
    here = [os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()]
    assert not any(name.startswith(str(tmp_path)) for name in here)


def _descriptors() -> list[int]:
    # The descriptor that listed the folder is closed by the time it is looked at.
    return [int(n) for n in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{n}")]


# --- rotation ------------------------------------------------------------------------------


def test_a_file_is_put_aside_before_it_outgrows_its_size(tmp_path):
    sink = make(tmp_path, clock=FakeClock(start_us=ARRIVAL_US), rotate_bytes=1_000)
    for _ in range(6):
        sink.write(batch(records(2)))
    names = files(tmp_path)
    assert len(names) > 1
    assert "log/2026-09-21.ndjson" in names
    assert "log/2026-09-21.20260921T141320.001.ndjson" in names
    assert all((tmp_path / name).stat().st_size <= 1_000 for name in names)
    assert len(lines(tmp_path)) == 12


def test_a_batch_larger_than_a_file_is_written_whole(tmp_path):
    sink = make(tmp_path, rotate_bytes=100)
    sink.write(batch(records(50)))
    assert len(files(tmp_path)) == 1


def test_a_file_is_put_aside_when_it_is_old(tmp_path):
    clock = FakeClock()
    sink = make(tmp_path, clock=clock, rotate_age_s=60, idle_close_s=1000)
    sink.write(batch(records(1)))
    clock.advance(59)
    sink.tend()
    assert len(files(tmp_path)) == 1
    clock.advance(1)
    sink.tend()
    assert len(files(tmp_path)) == 1
    assert "log/2026-09-21.ndjson" not in files(tmp_path)
    sink.write(batch(records(1)))
    clock.advance(60)
    sink.write(batch(records(1)))
    assert len(files(tmp_path)) == 3
    assert len(lines(tmp_path)) == 3


def test_an_empty_file_is_not_put_aside(tmp_path):
    sink = make(tmp_path)
    sink.write(batch(records(1)))
    sink.rotate()
    sink.rotate()
    assert len(files(tmp_path)) == 2


def test_a_file_that_someone_else_moved_away_is_left_alone(tmp_path):
    sink = make(tmp_path)
    sink.write(batch(records(1)))
    path = tmp_path / "log/2026-09-21.ndjson"
    path.rename(tmp_path / "moved")
    sink.write(batch(records(2)))
    assert len((tmp_path / "moved").read_bytes().splitlines()) == 1
    assert len(path.read_bytes().splitlines()) == 2


def test_a_writer_waits_for_another_process_that_rotates(tmp_path, monkeypatch):
    sink = make(tmp_path)
    sink.write(batch(records(1)))
    path = tmp_path / "log/2026-09-21.ndjson"
    waits, lock = threading.Event(), fcntl.flock

    def announced(fd, operation):
        if operation == fcntl.LOCK_EX:
            waits.set()
        lock(fd, operation)

    with path.open() as rotating:
        lock(rotating, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", announced)
        thread = threading.Thread(target=lambda: sink.write(batch(records(2))))
        thread.start()
        assert waits.wait(WAIT_S)
        path.rename(tmp_path / "moved")
    thread.join(WAIT_S)
    assert len((tmp_path / "moved").read_bytes().splitlines()) == 1
    assert len(path.read_bytes().splitlines()) == 2


def test_an_unused_file_is_closed(tmp_path):
    clock = FakeClock()
    sink = make(tmp_path, clock=clock, idle_close_s=10)
    sink.write(batch(records(1)))
    clock.advance(10)
    sink.tend()
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()]
    assert not any(name.startswith(str(tmp_path)) for name in held)
    sink.write(batch(records(1)))
    assert len(lines(tmp_path)) == 2


def test_several_processes_share_a_file_and_its_rotation(tmp_path):
    """Each of two processes writes through rotations that any of them makes."""
    script = (
        "import sys, django; django.setup()\n"
        "from tests.sinks.test_file_sink import make\n"
        "from tests.sinks.records import batch, record\n"
        "from pathlib import Path\n"
        "sink = make(Path(sys.argv[1]), rotate_bytes=20_000)\n"
        "for n in range(60):\n"
        "    mine = [record({'who': sys.argv[2], 'n': n * 10 + i}) for i in range(10)]\n"
        "    sink.write(batch(mine))\n"
        "sink.close()\n"
    )
    out = tmp_path / "out"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(out), str(who)],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "collector_site.settings"},
            cwd=Path(__file__).parents[2],
        )
        for who in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    found = [(line["record"]["who"], line["record"]["n"]) for line in lines(out)]
    assert sorted(found) == sorted((str(who), n) for who in range(2) for n in range(600))
    assert len(files(out)) > 3


# --- faults --------------------------------------------------------------------------------


def test_a_torn_line_from_a_crash_is_ended_before_the_next(tmp_path):
    path = tmp_path / "log/2026-09-21.ndjson"
    path.parent.mkdir()
    path.write_bytes(b'{"id":"1"}\n{"id":"2","tor')
    make(tmp_path).write(batch(records(1)))
    written = path.read_bytes().splitlines()
    assert written[1] == b'{"id":"2","tor'
    assert json.loads(written[2])["record"]["n"] == 0


def test_a_full_disk_leaves_no_torn_line_and_passes(tmp_path, monkeypatch):
    sink = make(tmp_path)
    sink.write(batch(records(1)))
    real, calls = os.write, []

    def full(fd, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real(fd, bytes(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    failed = batch(records(3))
    with pytest.raises(RetryableError, match="No space left"):
        sink.write(failed)
    monkeypatch.undo()
    assert len(lines(tmp_path)) == 1
    sink.write(failed)
    assert len(lines(tmp_path)) == 4


def test_a_batch_that_failed_half_way_is_not_repeated_in_the_files_it_reached(tmp_path):
    sink = make(tmp_path, path="{tenant}/{type}")
    blocked = tmp_path / "b"
    blocked.write_text("a file where a folder should be")
    sent = batch_of_parts(records(2), records(2), records(2), tenants=["a", "b", "c"])
    with pytest.raises(SinkFault):
        sink.write(sent)
    with pytest.raises(SinkFault):
        sink.write(sent)
    blocked.unlink()
    sink.write(sent)
    ids = [int(line["id"]) for line in lines(tmp_path)]
    assert sorted(ids) == sorted(r.id for r in sent.records)


def test_a_failed_sync_is_told_and_its_file_is_never_synced_again(tmp_path, monkeypatch):
    sink = make(tmp_path, fsync="batch")
    sink.write(batch(records(1)))
    synced = []

    def failing(fd):
        synced.append(os.fstat(fd).st_ino)
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "log/2026-09-21.ndjson"
    inode = path.stat().st_ino
    monkeypatch.setattr(os, "fdatasync", failing)
    sent = batch(records(2))
    with pytest.raises(RetryableError, match="Input/output"):
        sink.write(sent)
    assert synced == [inode]
    monkeypatch.undo()
    sink.write(sent)
    assert path.stat().st_ino != inode
    assert len(lines(tmp_path)) == 3


def test_a_failed_sync_of_a_new_file_removes_it(tmp_path, monkeypatch):
    sink = make(tmp_path, fsync="batch")

    def failing(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(RetryableError):
        sink.write(batch(records(2)))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("policy", "syncs"), [("never", 0), ("interval", 1), ("batch", 3)], ids=str
)
def test_syncs_as_the_policy_says(tmp_path, monkeypatch, policy, syncs):
    clock = FakeClock()
    sink = make(tmp_path, clock=clock, fsync=policy)
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    for _ in range(3):
        sink.write(batch(records(1)))
    sink.tend()
    sink.tend()
    assert len(calls) == syncs


def test_the_keeper_syncs_while_nothing_is_written(tmp_path, monkeypatch):
    clock = FakeClock()
    sink = make(tmp_path, clock=clock, fsync_interval_s=1.0)
    synced = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.set())
    sink.open()
    sink.write(batch(records(1)))
    while not synced.is_set():  # the keeper may not wait yet when the clock moves
        clock.advance(1)
    sink.close()
    assert not any(t.name == "sink-files-files" for t in threading.enumerate())


def test_a_directory_that_cannot_be_made_is_the_sinks_fault(tmp_path):
    (tmp_path / "file").write_text("")
    sink = make(tmp_path / "file" / "under")
    with pytest.raises(SinkFault, match="Not a directory"):
        sink.open()
    with pytest.raises(SinkFault):
        sink.write(batch(records(1)))
    with pytest.raises(SinkFault):
        sink.probe(batch(records(1)))


def test_a_pipe_is_not_written_to(tmp_path):
    (tmp_path / "log").mkdir()
    os.mkfifo(tmp_path / "log/2026-09-21.ndjson")
    with pytest.raises(SinkFault):
        make(tmp_path).write(batch(records(1)))


@pytest.mark.concurrency
def test_rotation_races_of_threads_lose_nothing(tmp_path):
    sink = make(tmp_path, rotate_bytes=3_000)
    sent = [batch(records(10)) for _ in range(80)]
    threads = [
        threading.Thread(target=lambda own=sent[n::8]: [sink.write(one) for one in own])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for _ in range(20):
        sink.rotate()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(int(line["id"]) for line in lines(tmp_path)) == sorted(
        r.id for one in sent for r in one.records
    )
