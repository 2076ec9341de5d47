"""`manage.py wal inspect` and `wal verify`: logs read in place, whole, damaged, of the living."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from pipeline.log.files import LogFiles
from pipeline.log.inspect import inspect_log, owner_of
from pipeline.log.log import Log
from pipeline.log.scan import FIRST_OFFSET
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer
from pipeline.record import Part
from tests.pipeline.support import frame, records, share
from tests.servers.collector import ROOT, clean_environ

LOG_ID = "0123456789abcdef0123456789abcdef"


@contextmanager
def living_log(root: Path, *, segment_bytes: int = 64 * 1024) -> Iterator[Log]:
    """A log that this process owns."""
    settings = LogSettings(
        directory=root, segment_bytes=segment_bytes, max_bytes=64 * 1024 * 1024, cache_bytes=0
    )
    files = LogFiles.create(log_id=LOG_ID, settings=settings, observer=Observer())
    log = Log(log_id=LOG_ID, files=files)
    try:
        yield log
    finally:
        files.close(remove=False)


def append(log: Log, *sinks: str, count: int = 3, **fields: Any) -> None:
    of = records(count)
    made = frame(of, *(share(of, sink=sink) for sink in sinks or ("a",)), **fields)
    log.append(made, durable=True)


def settle(log: Log, sink: str) -> None:
    """The next frame of a sink has ended for it, and the files say so."""
    got = log.read(log.cursor(sink))
    assert got is not None
    of, owed = got
    part = Part.of_extent(of, owed, 0, owed.count)
    number = log.form(sink, [part], (of.position + 1, 0))
    log.end(sink, [part], [], number=number)
    log.commit(sync=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "wal"


@pytest.fixture
def ended(root: Path) -> Path:
    """The log of a process that has ended: five frames for two sinks, one of them settled."""
    with living_log(root) as log:
        for _ in range(5):
            append(log, "a", "b")
        settle(log, "a")
    return root / LOG_ID


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = 0
    try:
        call_command("wal", *map(str, arguments))
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, capsys.readouterr().out


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def segment_of(log: Path) -> Path:
    return log / "segment-000000000001.seg"


def frame_offsets(log: Path) -> list[int]:
    out = subprocess_json("inspect", str(log), "--frames")
    return [one["offset"] for one in out["logs"][0]["frames"]]


def subprocess_json(*arguments: str) -> Any:
    from io import StringIO

    out = StringIO()
    call_command("wal", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_inspect_tells_what_is_held_and_owed(
    capsys: pytest.CaptureFixture[str], ended: Path, root: Path
) -> None:
    status, out = run(capsys, "inspect", root)
    assert status == 0
    assert f"log {LOG_ID}: no living process owns it" in out
    assert "5 frames, 0 to 4, 15 records" in out
    assert "sink a: 12 records left" in out
    assert "sink b: 15 records left" in out
    assert "the oldest of them came" in out


def test_one_log_or_all_of_them(capsys: pytest.CaptureFixture[str], ended: Path) -> None:
    shutil.copytree(ended, ended.parent / "another")
    (ended.parent / "quarantine").mkdir()
    (ended.parent / ".being-made").mkdir()
    assert run(capsys, "verify", ended)[1].startswith(f"log {LOG_ID}: sound; 1 segment, 5 frames")
    status, out = run(capsys, "verify", ended.parent)
    assert status == 0
    assert "2 logs under" in out
    assert "everything is sound" in out


def test_frames_and_records_as_json(ended: Path) -> None:
    data = subprocess_json("inspect", str(ended), "--frames", "--records", "4")
    (log,) = data["logs"]
    assert data["corrupt"] is False
    assert log["left"] == {"a": 12, "b": 15}
    assert [one["position"] for one in log["frames"]] == [0, 1, 2, 3, 4]
    assert log["frames"][0]["shares"][0]["sink"] == "a"
    messages = [one["message"] for one in log["records"]]
    assert len(messages) == 4
    assert messages == sorted(messages)
    ids = [one["id"] for one in log["records"]]
    assert ids[1] == ids[0] + 1
    assert {one["sink"]: one["accepted"] for one in log["tallies"]} == {"a": 15, "b": 15}


def test_frames_and_records_for_people(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    with living_log(root) as log:
        append(log, "a", tenant="acme\x1b[31m", count=2)
    _, out = run(capsys, "inspect", root, "--frames", "--records", "1")
    assert "segment-000000000001.seg:64  frame 0  2 log records of acme?[31m" in out
    assert '"message": "m-' in out
    assert "\x1b" not in out


def test_a_log_whose_process_lives_is_read_beside_it_and_not_taken_from_it(
    capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    with living_log(root) as log:
        append(log)
        status, out = run(capsys, "verify", root)
        assert status == 0
        assert "1 frame, 3 records left" in out
        append(log)
        report = inspect_log(root / LOG_ID)
        assert report.segments[0].frames == 2
    assert owner_of(root / LOG_ID) == 0


def test_a_frame_that_a_living_process_is_writing_is_no_damage(root: Path) -> None:
    with living_log(root) as log:
        append(log)
        append(log)
        path = segment_of(root / LOG_ID)
        flip(path, frame_offsets(root / LOG_ID)[-1] + 70)
        living, path_of = inspect_log(root / LOG_ID), root / LOG_ID
        if living.owner:  # a kernel that tells whose locks there are
            assert not living.corrupt
            assert living.segments[0].unfinished > 0
    assert inspect_log(path_of).corrupt


def test_a_flipped_bit_costs_one_frame_and_the_exit_status(
    capsys: pytest.CaptureFixture[str], ended: Path
) -> None:
    offset = frame_offsets(ended)[2]
    flip(segment_of(ended), offset + 80)
    status, out = run(capsys, "verify", ended)
    assert status == 1
    assert f"log {LOG_ID}: DAMAGED; 1 segment, 4 frames" in out
    assert f"segment-000000000001.seg at {offset}: " in out
    assert "the checksum does not fit (3 records)" in out
    assert run(capsys, "inspect", ended)[0] == 0
    assert run(capsys, "verify", ended, "--json")[0] == 1


def test_a_torn_end_is_told_as_what_it_is(capsys: pytest.CaptureFixture[str], ended: Path) -> None:
    path = segment_of(ended)
    with path.open("r+b") as file:
        file.truncate(frame_offsets(ended)[-1] + 80)
    status, out = run(capsys, "verify", ended)
    assert status == 1
    assert "the frame is cut off (3 records; nothing sound follows)" in out


@pytest.mark.parametrize("size", [0, 1, FIRST_OFFSET - 1, FIRST_OFFSET])
def test_a_short_or_empty_segment_does_not_stop_the_reading(
    capsys: pytest.CaptureFixture[str], ended: Path, size: int
) -> None:
    (ended / "segment-000000000002.seg").write_bytes(b"\0" * size)
    status, out = run(capsys, "verify", ended)
    assert status == 0
    assert "2 segments, 5 frames" in out


def test_a_file_that_is_no_segment_is_damage(
    capsys: pytest.CaptureFixture[str], ended: Path
) -> None:
    (ended / "segment-000000000002.seg").write_bytes(b"not a segment\n" * 100)
    status, out = run(capsys, "verify", ended)
    assert status == 1
    assert "it does not begin as a segment does" in out


def test_a_segment_that_the_checkpoint_counts_on_is_missed(
    capsys: pytest.CaptureFixture[str], ended: Path, root: Path
) -> None:
    shutil.rmtree(ended)
    with living_log(root) as log:
        append(log)
        log.checkpoint()
    segment_of(ended).unlink()
    status, out = run(capsys, "verify", ended)
    assert status == 1
    assert "segments are missing that the checkpoint counts on: 1" in out


def test_two_spoilt_checkpoints_are_damage_and_one_is_not(
    capsys: pytest.CaptureFixture[str], ended: Path, root: Path
) -> None:
    shutil.rmtree(ended)
    with living_log(root) as log:
        append(log)
        log.checkpoint()
        log.checkpoint()
    flip(ended / "checkpoint.0", 30)
    assert run(capsys, "verify", ended)[0] == 0
    flip(ended / "checkpoint.1", 30)
    status, out = run(capsys, "verify", ended)
    assert status == 1
    assert "no checkpoint is sound: checkpoint.0 and checkpoint.1" in out


def test_a_settled_log_has_nothing_left(root: Path) -> None:
    with living_log(root) as log:
        append(log)
        settle(log, "a")
    report = inspect_log(root / LOG_ID)
    assert report.left == {"a": 0}
    assert report.oldest_us is None


def test_nothing_is_written_or_locked_by_reading(ended: Path) -> None:
    def look() -> dict[str, tuple[int, int]]:
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in ended.iterdir()}

    before = look()
    inspect_log(ended)
    assert look() == before


def test_a_directory_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as raised:
        call_command("wal", "verify", str(tmp_path / "absent"))
    assert raised.value.returncode == 2
    assert "cannot be read" in str(raised.value)


def test_a_directory_without_logs_is_empty(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "something").mkdir()
    assert "No log lies under" in run(capsys, "inspect", tmp_path)[1]


def test_without_any_database_or_a_log_yet(tmp_path: Path, ended: Path) -> None:
    """The databases cannot be reached, and the data directory is new."""
    away = "postgresql://nobody@127.0.0.1:1/none"
    environ = clean_environ(tmp_path / "data", {"COLLECTOR_DATABASE_URL": away})
    for arguments, status, said in (
        (("inspect",), 0, "No log lies under"),
        (("verify", str(ended)), 0, "everything is sound"),
    ):
        done = subprocess.run(
            (sys.executable, "manage.py", "wal", *arguments),
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (status, "")
        assert said in done.stdout
