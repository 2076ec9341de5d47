"""The log's directory: private, made at the start, and on a disk that keeps what it is given."""

from __future__ import annotations

import logging
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from collector_site.checks import check_log_directory
from collector_site.logdirectory import LogDirectory
from control.config.filesystems import kind_of

MOUNTS = r"""
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:5 / /mnt rw - nfs4 host:/export rw
23 21 0:6 / /mnt/fast\040disk rw,relatime shared:3 - xfs /dev/sdb1 rw
24 21 0:7 / /run rw - tmpfs tmpfs rw
25 24 8:1 / /run rw - ext4 /dev/sda1 rw
26 21 0:9 / /mntz rw - tmpfs tmpfs rw
not a mount at all
"""


@pytest.fixture
def wal(tmp_path: Path, settings: Any) -> Path:
    log = replace(django_settings.COLLECTOR.log, directory=tmp_path / "deep" / "wal")
    settings.COLLECTOR = replace(django_settings.COLLECTOR, log=log)
    return tmp_path / "deep" / "wal"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_only(wal: Path) -> None:
    LogDirectory().start("server")
    assert mode(wal) == 0o700


def test_what_others_may_do_in_one_that_exists_is_taken_away(wal: Path) -> None:
    wal.mkdir(parents=True, mode=0o755)
    wal.chmod(0o755)
    LogDirectory().start("server")
    assert mode(wal) == 0o700


def test_a_command_makes_none(wal: Path) -> None:
    LogDirectory().start("command")
    assert not wal.exists()


def test_one_that_cannot_be_made_does_not_stop_the_start(
    wal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wal.parent.write_text("a file where the directory should be")
    with caplog.at_level(logging.ERROR):
        LogDirectory().start("server")
    assert "COLLECTOR_WAL_DIRECTORY" in caplog.text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/data/wal", "ext4"),
        ("/mnt/wal", "nfs4"),
        ("/mnt/fast disk/wal", "xfs"),
        ("/run/wal", "ext4"),
        ("/mntz", "tmpfs"),
    ],
)
def test_the_innermost_and_latest_mount_tells_the_kind(
    tmp_path: Path, path: str, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert kind_of(Path(path), mounts=mounts) == kind


def test_nobody_can_say_without_a_table(tmp_path: Path) -> None:
    assert kind_of(tmp_path, mounts=tmp_path / "none") == ""


@pytest.mark.parametrize(("kind", "word"), [("tmpfs", "memory"), ("nfs4", "network")])
def test_a_place_that_keeps_nothing_is_warned_of(
    wal: Path, monkeypatch: pytest.MonkeyPatch, kind: str, word: str
) -> None:
    monkeypatch.setattr("collector_site.checks.kind_of", lambda _: kind)
    (found,) = check_log_directory()
    assert found.id == "collector.W005"
    assert word in found.msg
    assert "COLLECTOR_WAL_DIRECTORY" in (found.hint or "")


def test_a_local_disk_is_not(wal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector_site.checks.kind_of", lambda _: "ext4")
    assert check_log_directory() == []
