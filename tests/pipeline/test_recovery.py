"""Recovery: what a process left comes back as it was, and what is spoilt costs itself alone."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.log.encoding import HEADER_BYTES
from pipeline.log.files import Owned
from pipeline.log.recovery import recover
from pipeline.log.root import log_directories, orphans
from pipeline.log.segmentfile import encode_head, path_of
from pipeline.record import ERROR, INFO
from tests.pipeline.lives import SINKS, Held
from tests.pipeline.test_log_files import Lives


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path)


def contents(held: Held, sink: str = "all") -> dict[int, list[int]]:
    return {batch.number: [one.id for one in batch.records] for batch in held.batches[sink]}


def load(lives: Lives, held: Held, sink: str = "all") -> dict[int, list[int]]:
    """Every batch that had been formed, and then those formed anew."""
    while lives.life.form(held, sink):
        pass
    return contents(held, sink)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("limits", [{"max_records": 1}, {"max_records": 100}, {"max_bytes": 50}])
def test_batches_come_back_with_their_numbers_and_records_whatever_the_limits(
    lives: Lives, power: bool, limits: dict[str, Any]
) -> None:
    """With a frame that one batch ended in, two tenants, and a batch that was taken apart."""
    lives.offer(*[INFO] * 3)
    lives.offer(*[ERROR] * 6, tenant="u")
    lives.offer(*[INFO, ERROR] * 4)
    for _ in range(3):
        lives.form()
        lives.life.form(lives.life.own, "errors")
    own = lives.life.own
    lives.life.split(own, "all", 1)
    before = {sink: contents(own, sink) for sink in SINKS}
    assert len(before["all"]) == 4
    lives.life.log.commit(sync=True)
    lives.killed(power=power, **limits)
    held = lives.adopted
    for sink in SINKS:
        after = load(lives, held, sink)
        assert {n: after[n] for n in before[sink]} == before[sink]
        fresh = {number for number in after if number not in before[sink]}
        assert not fresh & set(before["all"] | before["errors"])
    lives.deliver_all()
    assert lives.stored() == list(range(1, 18))
    assert lives.stored("errors") == [4, 5, 6, 7, 8, 9, 11, 13, 15, 17]
    assert held.imbalances() == {}
    assert lives.life.finish() == [held]
    assert not (lives.root / held.log.log_id).exists()


def test_what_was_stored_and_not_noted_is_known_by_its_proof(lives: Lives) -> None:
    offered = lives.offer(*[INFO] * 10)
    for _ in range(3):
        lives.form()
    lives.deliver(noted=False)
    lives.deliver(noted=True)
    lives.killed(power=True, max_records=3)
    lives.deliver_all()
    assert lives.stored() == offered
    held = lives.adopted
    tally = held.log.ledger.tallies()["all", "t"]
    assert (tally.accepted, tally.stored + tally.already_stored) == (10, 10)
    assert held.imbalances() == {}


def test_what_was_noted_is_not_sent_again(lives: Lives) -> None:
    lives.offer(*[INFO] * 4, sinks=("all",))
    lives.form()
    lives.deliver()
    lives.killed()
    held = lives.adopted
    assert held.log.settled
    assert held.log.ledger.tallies()["all", "t"].stored == 4
    assert lives.life.finish() == [held]


def test_numbers_are_not_given_again(lives: Lives) -> None:
    """Not even those that a spoilt journal has forgotten: their proofs may be in the sink."""
    offered = lives.offer(*[INFO] * 12)
    lives.form()
    lives.form()
    lives.deliver()
    lives.deliver()
    name = lives.life.name
    lives.life.let_go()
    lives.disk.crash(Random(0), power=False)
    for slot in (0, 1):
        lives.disk.damage(lives.root / name / f"checkpoint.{slot}", 8, b"\xff" * 40)
    lives.next_life(max_records=3)
    lives.deliver_all()
    assert set(lives.stores["all"].stored) == set(offered), "twice rather than never"
    assert lives.adopted.imbalances() == {}


@pytest.mark.parametrize("generation", [0, 1])
def test_one_spoilt_checkpoint_of_two_loses_nothing(lives: Lives, generation: int) -> None:
    offered = lives.offer(*[INFO] * 12)
    lives.form()
    lives.deliver()
    lives.life.log.checkpoint()
    lives.form()
    lives.deliver()
    lives.life.let_go()
    lives.disk.crash(Random(0), power=False)
    path = lives.root / lives.life.name / f"checkpoint.{generation}"
    lives.disk.damage(path, 30, b"\xff" * 8)
    lives.next_life()
    lives.deliver_all()
    assert set(lives.stores["all"].stored) == set(offered)
    assert lives.adopted.imbalances() == {}


class TestDamage:
    """A process is killed with ten frames of two records in its files; something is spoilt."""

    @staticmethod
    def killed_with(lives: Lives, *, nbytes: int = 0) -> Path:
        for _ in range(10):
            lives.offer(INFO, INFO, nbytes=nbytes, sinks=("all", "errors", "optional"))
        lives.life.let_go()
        lives.disk.crash(Random(0), power=False)
        return lives.root / lives.life.name

    @staticmethod
    def check(lives: Lives, lost: set[int], *, counted: int | None = None) -> None:
        held = lives.adopted
        assert held.imbalances() == {}
        lives.deliver_all()
        assert held.imbalances() == {}
        assert set(lives.stored()) == set(range(1, 21)) - lost
        tallies = held.log.ledger.tallies()
        corrupt = Counter(
            {
                sink: sum(t.dropped.get("corrupt", 0) for (s, _), t in tallies.items() if s == sink)
                for sink in ("all", "(corrupt)")
            }
        )
        assert corrupt.total() == (len(lost) if counted is None else counted)
        assert lives.life.finish() == [held]

    def quarantined(self, lives: Lives) -> list[bytes]:
        return [
            lives.disk.content(path)
            for path in lives.disk.paths()
            if path.parent.name == "quarantine"
        ]

    @pytest.mark.parametrize("where", ["header", "meta", "payload"])
    def test_a_flipped_byte_costs_its_frame_alone(self, lives: Lives, where: str) -> None:
        directory = self.killed_with(lives)
        path = path_of(directory, 1)
        data = lives.disk.content(path)
        payload = data.index(b"5/0")
        header = data.rindex(b"CLfr", 0, payload)
        at = {"header": header + 20, "meta": header + HEADER_BYTES + 2, "payload": payload}[where]
        lives.disk.damage(path, at, bytes([data[at] ^ 0x40]))
        lives.next_life()
        self.check(lives, {5, 6})
        (kept,) = self.quarantined(lives)
        assert b"/0" in kept

    def test_a_spoilt_frame_that_was_stored_before_balances(self, lives: Lives) -> None:
        for _ in range(10):
            lives.offer(INFO, INFO, sinks=("all",))
        for _ in range(5):
            lives.form()
            lives.deliver()
        lives.life.let_go()
        lives.disk.crash(Random(0), power=False)
        path = path_of(lives.root / lives.life.name, 1)
        lives.disk.damage(path, lives.disk.content(path).index(b"5/0"), b"#")
        lives.next_life()
        held = lives.adopted
        assert held.imbalances() == {}
        lives.deliver_all()
        assert lives.stored() == list(range(1, 21))
        assert held.imbalances() == {}

    def test_a_torn_tail_is_passed_over(self, lives: Lives) -> None:
        directory = self.killed_with(lives)
        path = path_of(directory, 1)
        data = lives.disk.content(path)
        end = data.rindex(b"20/") if b"20/" in data else len(data.rstrip(b"\0"))
        lives.disk.damage(path, -(-end // 8) * 8, data[64:90])
        lives.next_life()
        self.check(lives, set())
        files = lives.life.adopted[0].log.files if lives.life.adopted else None
        assert files is None
        assert len(self.quarantined(lives)) == 1

    def test_a_middle_file_that_is_gone_costs_what_it_held(self, lives: Lives) -> None:
        directory = self.killed_with(lives, nbytes=500)
        names = lives.segments()
        assert len(names) >= 4
        lost = {
            int(word.split(b"/")[0]) + half
            for word in _messages(lives.disk.content(directory / names[1]))
            for half in (0, 1)
        }
        lives.disk.unlink(directory / names[1])
        lives.next_life()
        self.check(lives, lost)

    @pytest.mark.parametrize("keep", [0, 10, 64, 70])
    def test_a_file_of_no_length_or_half_written_costs_its_own_at_most(
        self, lives: Lives, keep: int
    ) -> None:
        directory = self.killed_with(lives)
        fd = lives.disk.create(path_of(directory, 2), 0)
        lives.disk.write(fd, [encode_head(lives.life.name, 2) + b"CLfr\x01\x01"], 0)
        lives.disk.truncate(fd, keep)
        lives.disk.close(fd)
        lives.next_life()
        self.check(lives, set())

    def test_strange_files_are_left_alone(self, lives: Lives) -> None:
        directory = self.killed_with(lives)
        lives.disk.close(lives.disk.create(directory / "README", 5))
        lives.next_life()
        self.check(lives, set())

    @pytest.mark.parametrize("what", ["checkpoint", "journal"])
    def test_rubbish_in_both_files_costs_no_record(self, lives: Lives, what: str) -> None:
        directory = self.killed_with(lives)
        for slot in (0, 1):
            path = directory / f"{what}.{slot}"
            lives.disk.damage(path, 0, Random(slot).randbytes(3000))
        lives.next_life()
        self.check(lives, set())

    def test_a_missing_journal_costs_no_record(self, lives: Lives) -> None:
        directory = self.killed_with(lives)
        for name in ("journal.0", "journal.1", "checkpoint.0", "checkpoint.1"):
            lives.disk.unlink(directory / name)
        lives.next_life()
        self.check(lives, set())

    def test_a_newer_version_waits_for_a_newer_program(self, lives: Lives) -> None:
        import struct
        import zlib

        directory = self.killed_with(lives)
        head = bytearray(lives.disk.content(path_of(directory, 1))[:48])
        struct.pack_into("<H", head, 4, 2)
        lives.disk.damage(
            path_of(directory, 1), 0, bytes(head) + struct.pack("<I", zlib.crc32(head))
        )
        lives.next_life()
        assert lives.life.adopted == []
        assert (directory / "lock").exists()

    def test_a_batch_of_which_all_is_spoilt_has_ended(self, lives: Lives) -> None:
        for _ in range(4):
            lives.offer(INFO, INFO, sinks=("all",))
        lives.form()
        lives.form()
        lives.life.log.commit(sync=True)
        lives.life.let_go()
        lives.disk.crash(Random(0), power=False)
        path = path_of(lives.root / lives.life.name, 1)
        for word in (b"1/0", b"3/0"):
            lives.disk.damage(path, lives.disk.content(path).index(word), b"#")
        lives.next_life()
        held = lives.adopted
        assert held.imbalances() == {}
        assert list(load(lives, held)) == [2]
        lives.deliver_all()
        assert lives.stored() == [5, 6, 7, 8]
        assert held.log.ledger.tallies()["all", "t"].dropped == {"corrupt": 4}
        assert lives.life.finish() == [held]

    def test_what_is_spoilt_after_the_adoption_is_dropped_when_it_is_read(
        self, lives: Lives
    ) -> None:
        for _ in range(4):
            lives.offer(INFO, INFO, sinks=("all",))
        lives.form()
        lives.form()
        lives.life.log.commit(sync=True)
        directory = lives.root / lives.life.name
        lives.killed()
        held = lives.adopted
        path = path_of(directory, 1)
        data = lives.disk.content(path)
        for word in (b"1/0", b"3/0", b"7/0"):
            lives.disk.damage(path, data.index(word), b"#")
        lives.deliver_all()
        assert held.imbalances() == {}
        assert lives.stored() == [5, 6]
        assert held.log.ledger.tallies()["all", "t"].dropped == {"corrupt": 6}
        assert lives.life.finish() == [held]


def _messages(data: bytes) -> list[bytes]:
    import re

    return re.findall(rb"\d+/0", data)


class TestMemory:
    def test_what_was_in_memory_alone_is_counted_as_lost(self, lives: Lives) -> None:
        kept = lives.offer(INFO, INFO)
        lives.offer(INFO, durable=False)
        lives.offer(INFO, INFO, tenant="u", durable=False)
        lives.disk.fail("sync", errno.EIO, times=1)
        lives.life.writer.write_queued()
        lives.form()
        lives.life.log.checkpoint()
        lives.killed()
        held = lives.adopted
        lives.deliver_all()
        assert lives.stored() == kept
        dropped = {
            t: one.dropped for (s, t), one in held.log.ledger.tallies().items() if s == "all"
        }
        assert dropped == {"t": {"unlogged": 1}, "u": {"unlogged": 2}}
        assert held.imbalances() == {}
        assert lives.life.finish() == [held]

    def test_what_was_in_memory_and_stored_since_the_checkpoint_balances(
        self, lives: Lives
    ) -> None:
        lives.offer(INFO, INFO, durable=False, sinks=("all",))
        lives.disk.fail("sync", errno.EIO, times=1)
        lives.life.writer.write_queued()
        lives.form()
        lives.deliver()
        lives.killed()
        held = lives.adopted
        assert held.imbalances() == {}
        tally = held.log.ledger.tallies()["all", "t"]
        assert (tally.accepted, tally.stored, tally.dropped) == (2, 2, {})


class TestWithoutSyncs:
    @pytest.mark.parametrize("fsync", ["interval", "never"])
    @pytest.mark.parametrize("seed", range(12))
    def test_a_power_cut_leaves_books_that_balance(
        self, tmp_path: Path, fsync: str, seed: int
    ) -> None:
        lives = Lives(tmp_path, fsync=fsync)
        for number in range(12):
            lives.offer(INFO, ERROR, nbytes=300)
            if number % 3 == 2:
                lives.form()
                lives.deliver()
        lives.killed(power=True, seed=seed)
        for held in lives.life.adopted:
            assert held.imbalances() == {}
        lives.life.deliver_all(lives.stores)
        for held in lives.life.adopted:
            assert held.imbalances() == {}
        lives.life.finish()
        assert lives.life.adopted == []

    def test_what_was_stored_and_vanished_from_the_files_balances(self, tmp_path: Path) -> None:
        lives = Lives(tmp_path, fsync="interval")
        lives.offer(INFO, INFO, sinks=("all",))
        lives.form()
        lives.deliver()
        lives.life.log.commit(sync=True)
        path = path_of(lives.root / lives.life.name, 1)
        lives.disk.damage(path, 64, bytes(len(lives.disk.content(path)) - 64))
        lives.killed()
        held = lives.adopted
        assert held.imbalances() == {}
        tally = held.log.ledger.tallies()["all", "t"]
        assert (tally.accepted, tally.stored, tally.dropped) == (2, 2, {})

    @pytest.mark.parametrize("fsync", ["interval", "never"])
    def test_a_kill_loses_nothing(self, tmp_path: Path, fsync: str) -> None:
        lives = Lives(tmp_path, fsync=fsync)
        offered = [one for _ in range(12) for one in lives.offer(INFO, ERROR, nbytes=300)]
        lives.form()
        lives.deliver(noted=False)
        lives.killed()
        lives.deliver_all()
        assert lives.stored() == offered


class TestOwnership:
    def test_keys_of_frames_in_the_log_are_told_and_hold_their_files(self, lives: Lives) -> None:
        lives.offer(key="one", sinks=("all",))
        lives.offer(key="two", sinks=("all",))
        lives.deliver_all()
        lives.life.log.key_recorded("two")
        lives.life.let_go()
        lives.disk.crash(Random(0), power=False)
        owned = Owned.take(lives.root / lives.life.name)
        assert owned is not None
        recovered = recover(
            owned, settings=lives.life.log_settings, clock=lives.clock, disk=lives.disk
        )
        assert recovered.keys == {"one", "two"}
        assert recovered.left == 0
        assert not recovered.log.settled
        for key in recovered.keys:
            recovered.log.key_recorded(key)
        assert recovered.log.settled

    def test_a_log_that_is_owned_is_not_taken(self, lives: Lives) -> None:
        lives.offer()
        directory = lives.root / lives.life.name
        assert Owned.take(directory) is None
        assert list(orphans(lives.root)) == []
        lives.life.let_go()
        lives.life.let_go()
        (owned,) = orphans(lives.root)
        assert owned.path == directory
        owned.release()

    def test_only_logs_are_looked_at(self, tmp_path: Path) -> None:
        assert log_directories(tmp_path / "nowhere") == []
        for name in ("quarantine", ".hidden", "lost+found", "b", "a", "notes"):
            (tmp_path / name).mkdir()
        for name in (".hidden", "lost+found", "b", "a"):
            (tmp_path / name / "lock").touch()
        (tmp_path / "file").touch()
        assert [path.name for path in log_directories(tmp_path)] == ["a", "b"]

    def test_a_directory_that_cannot_be_locked_is_told_and_left(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "lock").touch()

        def refuse(path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Owned, "take", refuse)
        assert list(orphans(tmp_path)) == []
        assert "cannot be taken over" in caplog.text

    @pytest.mark.parametrize("what", ["read", "sync", "write"])
    def test_a_recovery_that_fails_leaves_the_log_for_another_time(
        self, lives: Lives, what: str
    ) -> None:
        offered = lives.offer(INFO, INFO)
        lives.form()
        lives.killed()  # adopted once, and killed again
        lives.life.let_go()
        lives.disk.crash(Random(0), power=False)
        owned = Owned.take(lives.root / f"{1:032x}")
        assert owned is not None
        lives.disk.fail(what, errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            recover(owned, settings=lives.life.log_settings, clock=lives.clock, disk=lives.disk)
        owned.release()
        lives.disk.heal()
        assert lives.disk.open_files == 0
        lives.next_life()
        lives.deliver_all()
        assert lives.stored() == offered
