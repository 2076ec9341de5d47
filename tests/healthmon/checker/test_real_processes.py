"""Real checkers, killed, frozen and cut off: no false alarm, no flip lost or doubled."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import ServerFactory
from tests.healthmon.checker.watched import (
    CHECKER,
    Service,
    apply,
    assert_a_true_history,
    flips,
    holders,
    rows,
    statuses,
    tcp,
)
from tests.servers.collector import CollectorServer
from tests.servers.proxy import postgres_proxy

# Leases of three seconds, so that a takeover is soon there.
QUICK = {"COLLECTOR_CHECKER_LEASE_S": "3", "COLLECTOR_WAL_ADOPT_EVERY_S": "1"}


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.stop()


def _checker(start: ServerFactory, like: CollectorServer | None = None) -> CollectorServer:
    if like is None:
        return start(environ=QUICK, command=CHECKER, started=False).spawn()
    return start(
        environ=QUICK | {k: v for k, v in like.environ.items() if k == "COLLECTOR_DATABASE_URL"},
        data_dir=like.data_dir,
        command=CHECKER,
        started=False,
        prepare=False,
    ).spawn()


def test_up_down_and_up_again_with_one_incident(
    collector_server: ServerFactory, service: Service, tmp_path: Path
) -> None:
    checker = _checker(collector_server)
    apply(checker, tmp_path, tcp("shop", service.port, failure_threshold=2))
    checker.wait_until(lambda: statuses(checker) == {"shop": "up"})
    service.stop()
    checker.wait_until(lambda: statuses(checker) == {"shop": "down"})
    assert rows(checker, "SELECT count(*) FROM healthmon_incident WHERE closed_at IS NULL") == [
        (1,)
    ]
    service.start()
    checker.wait_until(lambda: statuses(checker) == {"shop": "up"})
    assert rows(checker, "SELECT count(*) FROM healthmon_incident WHERE closed_at IS NULL") == [
        (0,)
    ]
    assert_a_true_history(checker)
    checker.send(signal.SIGTERM)
    assert checker.wait() == 0
    # What was found is in the history, to the last result.
    stored = rows(checker, "SELECT count(*) FROM healthmon_proberesult", database="records")
    assert stored[0][0] >= 4


def test_another_checker_takes_over_from_a_killed_one_without_a_false_alarm(
    collector_server: ServerFactory, service: Service, tmp_path: Path
) -> None:
    first = _checker(collector_server)
    targets = [tcp(f"t{n}", service.port) for n in range(40)]
    apply(first, tmp_path, *targets)
    second = _checker(collector_server, first)
    second.wait_until(lambda: set(holders(first).values()) == {32})
    first.wait_until(lambda: set(statuses(first).values()) == {"up"} and len(statuses(first)) == 40)
    first.kill()
    second.wait_until(lambda: holders(second).get(second.pid) == 64)
    epochs = rows(second, "SELECT min(epoch), max(epoch) FROM healthmon_probeslot")
    assert epochs[0][1] >= 2
    service.stop()
    second.wait_until(lambda: set(statuses(second).values()) == {"down"})
    # Up once, down once, nothing in between: the takeover itself was no news.
    assert [(seq, to) for _, seq, _, to in flips(second)] == [(1, "up"), (2, "down")] * 40
    assert_a_true_history(second)


@pytest.mark.long
def test_a_frozen_checker_finds_unknown_and_no_incident(
    collector_server: ServerFactory, service: Service, tmp_path: Path
) -> None:
    checker = _checker(collector_server)
    apply(checker, tmp_path, *(tcp(f"t{n}", service.port) for n in range(100)))
    checker.wait_until(lambda: list(statuses(checker).values()) == ["up"] * 100)
    checker.send(signal.SIGSTOP)
    time.sleep(6)  # the product's own thresholds are of seconds, and its clock is the machine's
    checker.send(signal.SIGCONT)
    checker.wait_until(
        lambda: (
            [to for _, _, _, to in flips(checker)].count("unknown") == 100
            and list(statuses(checker).values()) == ["up"] * 100
        )
    )
    assert rows(checker, "SELECT count(*) FROM healthmon_incident") == [(0,)]
    assert [to for _, _, _, to in flips(checker)] == ["up", "unknown", "up"] * 100
    assert_a_true_history(checker)


@pytest.mark.long
def test_a_thawed_checker_says_nothing_about_what_another_has_taken(
    collector_server: ServerFactory, service: Service, tmp_path: Path
) -> None:
    first = _checker(collector_server)
    apply(first, tmp_path, *(tcp(f"t{n}", service.port) for n in range(20)))
    first.wait_until(lambda: list(statuses(first).values()) == ["up"] * 20)
    first.send(signal.SIGSTOP)
    second = _checker(collector_server, first)
    second.wait_until(lambda: holders(second).get(second.pid) == 64)
    service.stop()
    second.wait_until(lambda: set(statuses(second).values()) == {"down"})
    first.send(signal.SIGCONT)
    # They share again, and agree.
    second.wait_until(lambda: set(holders(second).values()) == {32})
    service.start()
    second.wait_until(lambda: set(statuses(second).values()) == {"up"})
    assert [to for _, _, _, to in flips(second)] == ["up", "down", "up"] * 20
    assert_a_true_history(second)


def _wait_for_more_flips(checker: CollectorServer) -> None:
    before = len(flips(checker))
    checker.wait_until(lambda: len(flips(checker)) > before)


@pytest.mark.long
def test_kills_in_mid_flush_lose_and_double_nothing(
    collector_server: ServerFactory, tmp_path: Path
) -> None:
    services = [Service() for _ in range(10)]
    checker = _checker(collector_server)
    apply(
        checker,
        tmp_path,
        *(tcp(f"t{n}", services[n % 10].port) for n in range(200)),
    )
    checker.wait_until(lambda: len(statuses(checker)) == 200)
    up = True
    for _ in range(4):
        for one in services:
            one.stop() if up else one.start()
        up = not up
        _wait_for_more_flips(checker)
        checker.kill()
        checker = _checker(collector_server, checker)
    wanted = "up" if up else "down"
    checker.wait_until(lambda: list(statuses(checker).values()) == [wanted] * 200)
    assert_a_true_history(checker)
    for one in services:
        one.stop()


@pytest.mark.long
@pytest.mark.once
def test_what_changes_while_the_database_is_away_is_stored_with_its_time_once_it_is_back(
    collector_server: ServerFactory, service: Service, tmp_path: Path, postgres_dsn: str
) -> None:
    with postgres_proxy(postgres_dsn) as (through, proxy):
        parts = conninfo_to_dict(through)
        url = f"postgresql://{parts['user']}@127.0.0.1:{proxy.port}/{parts['dbname']}"
        checker = collector_server(
            environ=QUICK | {"COLLECTOR_DATABASE_URL": url}, command=CHECKER, started=False
        ).spawn()
        apply(checker, tmp_path, *(tcp(f"t{n}", service.port) for n in range(20)))
        checker.wait_until(lambda: list(statuses(checker).values()) == ["up"] * 20)
        proxy.cut()
        checker.wait_for_line(lambda line: "leases cannot be renewed" in line)
        service.stop()
        went_down = time.time()
        time.sleep(8)  # each is probed at least twice, and nothing tells of it meanwhile
        service.start()
        came_back = time.time()
        # Longer than a lease in all: what is held is held on to, as nobody can take it.
        time.sleep(8)
        healed = time.time()
        proxy.heal()
        checker.wait_until(
            lambda: [to for _, _, _, to in flips(checker)] == ["up", "down", "up"] * 20
        )
        assert_a_true_history(checker)
        times = rows(checker, "SELECT seq, at FROM healthmon_flip WHERE seq > 1")
        for seq, at in times:
            began = went_down if seq == 2 else came_back
            assert began - 2 <= at.timestamp() < healed
