"""The spool and the NDJSON file: synced, locked, and forgiving what a crash leaves behind."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from django.db import OperationalError, connection

from pipeline.runtime.clock import SystemClock
from sinks.deadletters.box import LEFT_IN_PEACE_S, DatabaseBox
from sinks.deadletters.importer import import_spool, quarantine_of
from sinks.deadletters.ndjson import FileBox
from sinks.deadletters.spool import Spool, line_of, read
from sinks.models import DeadLetter, DeadLetterTally
from tests.deadletters.letters import letter, letters

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "deadletters" / "spool")


class Clock(SystemClock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def away(_letters: object) -> int:
    raise OperationalError("connection to server at db.example, user secret-user failed")


def test_a_box_without_its_database_spools(spool, caplog):
    clock = Clock()
    calls: list[int] = []

    def keep(some):
        calls.append(len(some))
        return away(some) if len(calls) == 1 else len(some)

    box = DatabaseBox(spool=spool, clock=clock, keep=keep)
    box.put(letters(3))
    box.put(letters(2))
    assert calls == [3], "a database that is away is left in peace"
    assert "secret-user" not in caplog.text
    (path,) = spool.files()
    assert len(read(path.read_bytes()).letters) == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    clock.now += LEFT_IN_PEACE_S
    box.put(letters(4))
    assert calls == [3, 4]


def test_a_full_disk_raises_and_leaves_no_half_line(spool, monkeypatch):
    first, write = letters(2), os.write
    spool.append(first)
    (path,) = spool.files()

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 40:
            return write(descriptor, data[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sinks.deadletters.appendfile.os.write", full)
    with pytest.raises(OSError, match="No space"):
        DatabaseBox(spool=spool, keep=away).put([letter(payload=b"x" * 30)])
    monkeypatch.undo()
    last = letter()
    spool.append([last])
    found = read(path.read_bytes())
    assert (found.letters, found.bad, found.torn) == ([*first, last], [], b"")


def test_a_real_file_size_limit_is_a_full_disk(tmp_path):
    """RLIMIT_FSIZE in a process of its own: what was acknowledged before is whole."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import django; django.setup()
from sinks.deadletters.spool import Spool
from tests.deadletters.letters import letters
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
spool, kept = Spool(Path({str(tmp_path)!r}) / "spool"), 0
try:
    while True:
        spool.append(letters(3)); kept += 3
except OSError:
    print(kept)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    (path,) = (tmp_path / "spool").iterdir()
    found = read(path.read_bytes())
    assert len(found.letters) == int(done.stdout) > 0
    assert not found.bad
    assert not found.torn


def test_after_a_failed_sync_another_file_is_begun(spool, monkeypatch):
    first, failing, next_one = letter(), letter(), letter()
    spool.append([first])

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sinks.deadletters.appendfile.os.fsync", broken)
    with pytest.raises(OSError, match="fsync"):
        spool.append([failing])
    monkeypatch.undo()
    spool.append([next_one])
    contents = [read(path.read_bytes()).letters for path in spool.files()]
    assert sorted(contents, key=lambda some: some[0].record_id) == [[first], [next_one]]


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_tail_costs_only_itself(cut):
    some = letters(3)
    data = b"".join(map(line_of, some))
    found = read(data[:-cut])
    assert found.letters == some[:2]
    assert found.torn
    assert not found.bad


def test_a_flipped_bit_costs_one_line():
    some = letters(3)
    lines = [bytearray(line_of(one)) for one in some]
    lines[1][60] ^= 4
    found = read(b"".join(lines))
    assert found.letters == [some[0], some[2]]
    assert len(found.bad) == 1


@pytest.mark.django_db
def test_the_spool_comes_home_without_doubles(spool):
    some = letters(1_500)
    spool.append(some[:900])
    spool.append(some[600:])
    assert import_spool(spool) == 1_500
    assert spool.files() == []
    assert DeadLetter.objects.count() == DeadLetterTally.objects.get().entered == 1_500
    spool.append(some[:10])
    assert import_spool(spool) == 0


@pytest.mark.django_db
def test_a_file_that_another_appends_to_is_left_alone(spool):
    other = Spool(spool.directory)
    other.append(letters(2))
    assert import_spool(spool) == 0
    assert len(spool.files()) == 1
    other.seal()
    assert import_spool(spool) == 2


@pytest.mark.django_db
def test_a_database_that_goes_away_again_leaves_the_file(spool, monkeypatch):
    spool.append(letters(2))
    monkeypatch.setattr("sinks.deadletters.importer.store.keep", away)
    with pytest.raises(OperationalError):
        import_spool(spool)
    monkeypatch.undo()
    assert import_spool(spool) == 2


@pytest.mark.django_db
def test_damaged_lines_are_put_aside(spool):
    some = letters(3)
    spool.append(some)
    (path,) = spool.files()
    spool.seal()
    data = bytearray(path.read_bytes())
    data[data.index(b"\n") + 40] ^= 1
    path.write_bytes(data + b"torn")
    assert import_spool(spool) == 2
    (aside,) = quarantine_of(spool).iterdir()
    assert aside.read_bytes().count(b"\n") == 1
    assert spool.files() == []


@pytest.fixture
def picky(transactional_db):
    """A database that refuses letters whose tenant is `refused`."""
    if connection.vendor == "sqlite":
        make = (
            "CREATE TRIGGER picky BEFORE INSERT ON sinks_deadletter WHEN NEW.tenant = 'refused' "
            "BEGIN SELECT RAISE(ABORT, 'picky'); END"
        )
        drop = "DROP TRIGGER picky"
    else:
        make = "ALTER TABLE sinks_deadletter ADD CONSTRAINT picky CHECK (tenant <> 'refused')"
        drop = "ALTER TABLE sinks_deadletter DROP CONSTRAINT picky"
    with connection.cursor() as cursor:
        cursor.execute(make)
    yield
    with connection.cursor() as cursor:
        cursor.execute(drop)


@pytest.mark.django_db(transaction=True)
def test_a_letter_that_the_database_refuses_does_not_hold_up_the_others(spool, picky, caplog):
    bad = letter(tenant="refused")
    DatabaseBox(spool=spool).put([*letters(5), bad, *letters(5)])
    assert import_spool(spool) == 10
    assert DeadLetter.objects.count() == 10
    (aside,) = quarantine_of(spool).iterdir()
    assert read(aside.read_bytes()).letters == [bad]
    assert "refuses a dead letter" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_killed_process_leaves_its_spool_to_others(tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import django; django.setup()
from sinks.deadletters.spool import Spool
from tests.deadletters.letters import letters
Spool(Path({str(tmp_path)!r}) / "spool").append(letters(7))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=60)
    assert ended.returncode == -9
    assert import_spool(Spool(tmp_path / "spool")) == 7


# --- the file of a sink ---------------------------------------------------------------------


def file_box(tmp_path: Path, **changes: int) -> FileBox:
    return FileBox(directory=tmp_path, sink="0b9f2f0e-7f51", sink_name="a b/c", **changes)


def test_letters_of_a_sink_in_a_file(tmp_path):
    box = file_box(tmp_path)
    one = letter(payload=b'{"a":1.50}')
    box.put([one, letter(payload=b"\xff")])
    box.put([one])
    assert box.path.name == "a_b_c-0b9f2f0e.ndjson"
    assert stat.S_IMODE(box.path.stat().st_mode) == 0o600
    first, second = map(json.loads, box.path.read_text().splitlines())
    assert first["record_id"] == one.record_id
    assert b'"payload":{"a":1.50}' in box.path.read_bytes()
    assert first["timestamp"].startswith("2026-09-21T14:13:18.999999")
    assert second["payload_base64"] == "/w=="


def test_a_file_knows_what_another_process_and_another_life_appended(tmp_path):
    some = letters(5, sink_name='quoted " name')
    file_box(tmp_path).put(some[:2])
    box = file_box(tmp_path)
    box.put(some[1:4])
    file_box(tmp_path).put(some[:5])
    box.put(some)
    assert box.path.read_bytes().count(b"\n") == 5


def test_half_a_line_is_cut_off_before_the_next(tmp_path):
    box, some = file_box(tmp_path), letters(2)
    box.put(some[:1])
    with box.path.open("ab") as file:
        file.write(b'{"sink":"x","record')
    box.put(some)
    found = [json.loads(line)["record_id"] for line in box.path.read_bytes().splitlines()]
    assert found == [one.record_id for one in some]


def test_a_full_file_is_renamed_and_kept(tmp_path):
    box, some = file_box(tmp_path, rotate_bytes=2_000), letters(20)
    for one in some:
        box.put([one])
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    found = [
        json.loads(line)["record_id"] for path in files for line in path.read_bytes().splitlines()
    ]
    assert sorted(found) == [one.record_id for one in some]


def test_a_file_takes_nothing_when_the_disk_is_full(tmp_path, monkeypatch):
    box = file_box(tmp_path)

    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sinks.deadletters.appendfile.os.write", full)
    with pytest.raises(OSError, match="No space"):
        box.put(letters(1))


def test_a_letter_from_a_redrive_is_written_again(tmp_path):
    box, one = file_box(tmp_path), letter()
    box.put([one])
    box.put([msgspec.structs.replace(one, origin="redrive-1-1")])
    assert box.path.read_bytes().count(b"\n") == 2
