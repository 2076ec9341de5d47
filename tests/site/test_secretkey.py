from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from collector_site.secretkey import secret_key


def test_it_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    key, mistake = secret_key(tmp_path / "data")
    assert mistake is None
    assert len(key) > 60
    assert secret_key(tmp_path / "data") == (key, None)
    mode = (tmp_path / "data" / "secret_key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert os.listdir(tmp_path / "data") == ["secret_key"]


@pytest.mark.concurrency
def test_all_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    keys: list[str] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait(180)
        keys.append(secret_key(tmp_path)[0])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_one_left_empty_by_a_crash_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch()
    key, _ = secret_key(tmp_path)
    assert len(key) > 60
    assert secret_key(tmp_path)[0] == key


def test_a_data_directory_that_is_a_file_is_a_mistake_with_a_number(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    key, mistake = secret_key(tmp_path / "data")
    assert key
    assert mistake is not None
    assert (mistake.id, mistake.fatal) == ("collector.E005", True)


def test_a_key_others_can_read_is_pointed_out(tmp_path: Path) -> None:
    secret_key(tmp_path)
    (tmp_path / "secret_key").chmod(0o644)
    _, mistake = secret_key(tmp_path)
    assert mistake is not None
    assert (mistake.id, mistake.fatal) == ("collector.W003", False)
