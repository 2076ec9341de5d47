"""Record-id numbers: leased, locked, kept over restarts, drawn without a database, raced for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.db import OperationalError

from control.processes.identity import moment
from control.processes.models import IdNode
from control.processes.nodefiles import NodeFiles
from control.processes.noderegistry import LEASED_NUMBERS, DatabaseRegistry, Registry
from control.processes.nodes import (
    LEASE,
    RESERVE_AHEAD_US,
    RESERVE_INTERVAL_S,
    NodeLease,
    take_node,
)
from pipeline.ids import node_of, time_of
from pipeline.runtime.clock import FakeClock


class NoDatabase:
    def confirm(self, *, number: int, holder: str, until: datetime) -> bool:
        raise OperationalError("no database")

    def lease(self, *, holder: str, now: datetime, until: datetime) -> tuple[int, datetime] | None:
        raise OperationalError("no database")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Taker:
    """Takes numbers and gives back at the end what a test left taken."""

    def __init__(self, data_dir: Path, clock: FakeClock) -> None:
        self.data_dir = data_dir
        self.clock = clock
        self.taken: list[NodeLease] = []

    def __call__(
        self, *, registry: Registry | None = None, data_dir: Path | None = None
    ) -> NodeLease:
        lease = take_node(data_dir=data_dir or self.data_dir, registry=registry, clock=self.clock)
        self.taken.append(lease)
        return lease

    def crash(self, lease: NodeLease) -> None:
        """What the kernel does for a killed process: the lock goes, the file stays as it was."""
        lease._number_lock.release()


@pytest.fixture
def take(tmp_path: Path, clock: FakeClock) -> Iterator[Taker]:
    taker = Taker(tmp_path, clock)
    yield taker
    for lease in taker.taken:
        lease.abandon()


@pytest.mark.django_db
def test_a_number_is_leased_and_used_again_by_the_next_process(take: Taker) -> None:
    first = take()
    assert first.number < LEASED_NUMBERS
    assert not first.provisional
    row = IdNode.objects.get()
    assert (row.number, row.leased_until) == (first.number, moment(take.clock.time_us()) + LEASE)
    first.release()
    assert take().number == first.number
    assert IdNode.objects.count() == 1


@pytest.mark.django_db
def test_processes_of_one_directory_and_of_two_never_share(take: Taker, tmp_path: Path) -> None:
    numbers = [take().number for _ in range(5)]
    numbers += [take(data_dir=tmp_path / "other").number for _ in range(5)]
    assert len(set(numbers)) == 10
    assert len({row.holder for row in IdNode.objects.all()}) == 2


@pytest.mark.django_db
def test_ids_go_on_upwards_after_a_crash_and_a_clock_set_back(take: Taker) -> None:
    first = take()
    last = first.ids.take(10) + 9
    take.crash(first)
    take.clock._start_us -= 5_000_000
    second = take()
    assert second.number == first.number
    assert second.ids.take(1) > last


@pytest.mark.django_db
def test_after_a_stop_in_order_ids_do_not_run_ahead(take: Taker) -> None:
    first = take()
    first.ids.take(1)
    first.release()
    take.clock.advance(1.0)
    assert time_of(take().ids.take(1)) == take.clock.time_us() // 1000 * 1000


@pytest.mark.django_db
def test_crashes_in_a_row_do_not_drift_far_ahead(take: Taker) -> None:
    for _ in range(50):
        lease = take()
        lease.ids.take(1)
        take.crash(lease)
    ahead_us = lease.ids.reserved_until_us - take.clock.time_us()
    assert ahead_us < 6 * RESERVE_AHEAD_US


@pytest.mark.django_db
def test_the_reservation_stays_ahead_of_the_ids(take: Taker) -> None:
    lease = take()
    files = NodeFiles(data_dir=take.data_dir)
    for _ in range(5):
        take.clock.advance(RESERVE_INTERVAL_S)
        lease.reserve()
        lease.ids.take(400_000)
        file = files.read(lease.number)
        assert file is not None
        assert file.reserved_until_us >= lease.ids.reserved_until_us


def test_without_a_database_a_number_of_the_upper_half_is_drawn(
    take: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    lease = take(registry=NoDatabase())
    assert lease.provisional
    assert lease.number >= LEASED_NUMBERS
    assert node_of(lease.ids.take(1)) == lease.number
    assert "provisional" in caplog.text
    assert "does not answer" in caplog.text
    (problem,) = lease.problems()
    assert "drawn at random" in problem.cause
    lease.release()
    assert lease.problems() == []
    # The next one of this directory does not draw again: fewer draws, fewer collisions.
    assert take(registry=NoDatabase()).number == lease.number


@pytest.mark.django_db
def test_a_leased_number_is_used_without_a_database_while_the_lease_lasts(take: Taker) -> None:
    lease = take()
    lease.release()
    again = take(registry=NoDatabase())
    assert (again.number, again.provisional) == (lease.number, False)
    again.release()
    take.clock.advance(LEASE.total_seconds() + 1)
    assert take(registry=NoDatabase()).provisional


@pytest.mark.django_db
def test_an_expired_number_is_taken_over_from_where_its_lease_ended(
    take: Taker, tmp_path: Path
) -> None:
    registry = DatabaseRegistry(numbers=1)
    first = take(registry=registry)
    take.crash(first)
    assert take(registry=registry, data_dir=tmp_path / "early").provisional
    take.clock.advance(LEASE.total_seconds() + 60)
    second = take(registry=registry, data_dir=tmp_path / "late")
    assert (second.number, second.provisional) == (0, False)
    # The old directory finds its number gone, and that it may not use it.
    assert take(registry=registry).provisional


@pytest.mark.django_db
def test_renewing_extends_the_lease_and_says_when_it_cannot(
    take: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    lease = take()
    take.clock.advance(3600)
    lease.renew()
    row = IdNode.objects.get()
    assert row.leased_until == moment(take.clock.time_us()) + LEASE
    assert lease.problems() == []
    IdNode.objects.update(holder="somebody else")
    lease.renew()
    lease.renew()
    assert caplog.text.count("was given to another data directory") == 1
    assert "another data directory" in lease.problems()[0].cause


@pytest.mark.django_db
def test_a_lost_lease_row_is_made_again(take: Taker) -> None:
    lease = take()
    IdNode.objects.all().delete()
    lease.renew()
    assert IdNode.objects.get().number == lease.number


@pytest.mark.django_db
def test_a_number_far_ahead_of_the_clock_is_set_aside(take: Taker) -> None:
    take.clock.advance(10 * 365 * 86_400)
    first = take()
    first.ids.take(1)
    first.release()
    take.clock.advance(-10 * 365 * 86_400)
    second = take()
    assert second.number != first.number
    assert time_of(second.ids.take(1)) <= take.clock.time_us() + 1_000


@pytest.mark.django_db
def test_a_copied_data_directory_gets_numbers_of_its_own(take: Taker, tmp_path: Path) -> None:
    lease = take(data_dir=tmp_path / "original")
    lease.release()
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    assert take(data_dir=tmp_path / "copy").number != lease.number
    assert take(data_dir=tmp_path / "original").number == lease.number


@pytest.mark.django_db
@pytest.mark.parametrize("damage", [b"", b'{"number":', b"\xff\xfe", b"null"])
def test_a_damaged_file_does_not_stop_the_start(take: Taker, damage: bytes) -> None:
    lease = take()
    lease.release()
    (take.data_dir / "nodes" / f"{lease.number:04d}.json").write_bytes(damage)
    assert not take().provisional


def test_a_released_lease_writes_no_more(take: Taker) -> None:
    lease = take(registry=NoDatabase())
    lease.release()
    files = NodeFiles(data_dir=take.data_dir)
    before = files.read(lease.number)
    take.clock.advance(100)
    lease.reserve()
    lease.release()
    assert files.read(lease.number) == before


@pytest.mark.django_db
def test_leasing_survives_losing_every_first_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another directory took the number between looking and taking."""
    registry = DatabaseRegistry()
    now = moment(1_760_000_000_000_000)
    IdNode.objects.create(number=7, holder="other", leased_until=now + timedelta(days=1))
    choices = iter([7, 7, 9])
    monkeypatch.setattr(
        "control.processes.noderegistry.secrets.choice", lambda numbers: next(choices)
    )
    leased = registry.lease(holder="me", now=now, until=now + LEASE)
    assert leased == (9, now)
    assert IdNode.objects.get(number=7).holder == "other"


RACER = """
import sys, django
django.setup()
from pathlib import Path
from control.processes.nodes import take_node
sys.stdin.readline()
lease = take_node(data_dir=Path(sys.argv[1]))
print(lease.number, int(lease.provisional), lease.ids.take(1000), flush=True)
sys.stdin.readline()
"""


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_real_processes_race_for_numbers(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Four processes of one data directory and a fresh database, started at once; then a kill."""
    environ = {
        **os.environ,
        "COLLECTOR_DATA_DIR": str(tmp_path),
        "COLLECTOR_DATABASE_URL": "",
        "PYTHONWARNINGS": "ignore",
    }
    if database == "postgresql":
        environ["COLLECTOR_DATABASE_URL"] = request.getfixturevalue("postgres_dsn")
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "control", "-v0"],
        env=environ,
        check=True,
        timeout=120,
    )

    def spawn(count: int) -> list[subprocess.Popen[str]]:
        return [
            subprocess.Popen(
                [sys.executable, "-c", RACER, str(tmp_path / "data")],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]

    def say(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def hear(process: subprocess.Popen[str]) -> tuple[int, int, int]:
        assert process.stdout is not None
        number, provisional, first = process.stdout.readline().split()
        return int(number), int(provisional), int(first)

    racers = spawn(4)
    late: list[subprocess.Popen[str]] = []
    try:
        for racer in racers:
            say(racer)
        told = [hear(racer) for racer in racers]
        assert len({number for number, _, _ in told}) == 4
        assert {provisional for _, provisional, _ in told} == {0}
        racers[0].send_signal(signal.SIGKILL)
        racers[0].wait(180)
        (heir,) = late = spawn(1)
        say(heir)
        number, _, first = hear(heir)
        assert number == told[0][0]
        assert first > told[0][2] + 999
    finally:
        for process in [*racers, *late]:
            process.kill()
            process.wait(180)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
