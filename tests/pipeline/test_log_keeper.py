"""The keeper's turns: what it does for the files, and that trouble is told once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.log.keeper import Keeper
from pipeline.log.log import Log
from tests.pipeline.support import PATIENCE_S
from tests.pipeline.test_log_files import Lives


def keeper_of(lives: Lives, relieved: list[int]) -> Keeper:
    log = lives.life.log
    memory = Log(log_id="memory")
    return Keeper(own=log, logs=lambda: [log, memory], relieve=relieved.append, clock=lives.clock)


def test_a_turn_writes_syncs_and_frees(tmp_path: Path) -> None:
    lives = Lives(tmp_path, fsync="interval")
    relieved: list[int] = []
    keeper = keeper_of(lives, relieved)
    lives.offer(durable=False)
    keeper.turn()
    lives.disk.calls.clear()
    lives.clock.advance(2.0)
    keeper.turn()
    assert lives.disk.calls["sync"] == 1
    lives.offer(nbytes=4000)
    lives.deliver_all()
    keeper.turn()
    assert len(lives.segments()) <= 2
    assert relieved == []


def test_a_log_that_is_nearly_full_has_its_first_file_relieved(tmp_path: Path) -> None:
    lives = Lives(tmp_path, max_bytes=3 * 4096)
    relieved: list[int] = []
    keeper = keeper_of(lives, relieved)
    for _ in range(3):
        lives.offer(nbytes=3500)
    keeper.turn()
    assert relieved == [1]


@pytest.mark.parametrize("error", [OSError(5, "a disk"), RuntimeError("nobody thought of")])
def test_a_turn_that_fails_is_told_and_the_next_one_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    lives = Lives(tmp_path)
    keeper = keeper_of(lives, [])
    turns = threading.Semaphore(0)

    def turn() -> None:
        turns.release()
        lives.life.writer.unwritten.set()
        raise error

    setattr(keeper, "turn", turn)  # noqa: B010
    keeper.start()
    for _ in range(3):
        assert turns.acquire(timeout=PATIENCE_S)
    keeper.stop(PATIENCE_S)
    assert not keeper.running
    told = caplog.text.count("cannot be looked after")
    assert told == 1 if isinstance(error, OSError) else told >= 3
