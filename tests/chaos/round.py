"""One round: a fresh installation, load, one fault at a random moment, healing, judgement.

Runs on the caller's thread. A round is made again by its seed, its fault and its database; what
the machine's own timing adds is not in the seed.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS, Fault, Unavailable
from tests.chaos.load import Connection, Load, Request
from tests.chaos.oracle import Judgement, Oracle
from tests.chaos.server import World
from tests.chaos.template import DATABASE, FILES, THIRD_PARTY, Template
from tests.chaos.watch import Watch, ask_stats, ledgers, unsettled

_BEFORE_S = (0.3, 1.0)
_AFTER_S = (0.4, 0.9)
_SETTLE_S = 75.0
_FRESH_S = 40.0
_LOOK_S = 0.3
_KILLED_TOO = 0.25
# A kill takes nothing that was written, synced or not; what a power cut takes is not shown here.
_FSYNC = ("group", "group", "group", "interval", "never")


@dataclass(kw_only=True)
class Outcome:
    seed: int
    fault: str
    database: str
    problems: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    judgements: list[Judgement] = field(default_factory=list)
    posted: int = 0
    debts: int = 0
    seconds: float = 0.0
    output: str = ""
    killed_too: bool = False

    @property
    def passed(self) -> bool:
        return not self.problems


def play(
    *,
    seed: int,
    fault: str,
    template: Template,
    cluster: Cluster | None,
    directory: Path,
    long: bool = False,
) -> Outcome:
    """Play one round; what goes wrong is in the outcome. Raises Unavailable."""
    database = "sqlite" if cluster is None else "postgresql"
    outcome = Outcome(seed=seed, fault=fault, database=database)
    began = time.monotonic()
    rng = random.Random(f"{seed} {fault} {database}")
    here = directory / f"round-{seed}-{fault}"
    here.mkdir()
    struck = FAULTS[fault](rng=rng, directory=here, long=long)
    try:
        _Round(outcome, struck, rng, template, cluster, here).play()
    except Unavailable:
        raise
    except Exception as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")
    finally:
        struck.release()
        if cluster is not None:
            cluster.revive()
        shutil.rmtree(here, ignore_errors=True)
    outcome.seconds = time.monotonic() - began
    return outcome


class _Round:
    def __init__(
        self,
        outcome: Outcome,
        fault: Fault,
        rng: random.Random,
        template: Template,
        cluster: Cluster | None,
        directory: Path,
    ) -> None:
        self.outcome = outcome
        self.fault = fault
        self.rng = rng
        self.killed_too = outcome.killed_too = fault.combines and rng.random() < _KILLED_TOO
        self.oracle = Oracle(
            run=f"chaos-{outcome.seed}",
            rng=random.Random(rng.random()),
            kills=fault.kills or self.killed_too,
        )
        wishes = fault.prepare()
        wishes.environ["COLLECTOR_WAL_FSYNC"] = rng.choice(_FSYNC)
        self.world = World(directory=directory, template=template, cluster=cluster, wishes=wishes)

    def play(self) -> None:
        with self.world as world:
            try:
                self.fault.before_start(world)
                world.start()
                self._strike()
                self._settle()
                self._judge()
            except Exception as error:
                self.outcome.problems.append(f"{type(error).__name__}: {error}")
            finally:
                self.outcome.problems += self.oracle.violations
                self.outcome.answers = self.oracle.answers
                self.outcome.posted = self.oracle.posted
                self.outcome.debts = len(self.oracle.debts | self.oracle.poisoned_debts)
        self.outcome.output = self.world.output

    def _strike(self) -> None:
        world, oracle = self.world, self.oracle
        load = Load(oracle=oracle, url=lambda: world.url, seed=self.rng.randrange(2**32))
        self.watch = Watch(lambda: world.url)
        self.watch.start()
        load.start()
        try:
            time.sleep(self.rng.uniform(*_BEFORE_S))
            try:
                self.fault.strike(world, load, oracle, self.watch)
                lasts_s = self.fault.duration_s()
                if self.killed_too:
                    time.sleep(lasts_s / 2)
                    world.kill()
                    world.start()
                time.sleep(lasts_s / (1 + self.killed_too))
            finally:
                self.fault.heal(world)
            time.sleep(self.rng.uniform(*_AFTER_S))
        finally:
            load.stop()

    def _settle(self) -> None:
        """A fresh record passes, all that is owed is stored, and every process is at rest."""
        try:
            self._pass_a_fresh_record()
            deadline = time.monotonic() + _SETTLE_S
            while owed := list(self._owed()):
                if time.monotonic() > deadline:
                    self.outcome.problems.append(
                        f"{_SETTLE_S:g} s after healing: {'; '.join(owed)[:600]}"
                    )
                    break
                time.sleep(_LOOK_S)
        finally:
            self.watch.stop()
            self.outcome.seen = self.watch.seen
            self.outcome.problems += self.watch.alarms

    def _owed(self) -> Iterator[str]:
        """What is missing or moving still; the cheap questions first."""
        for _ in range(2 * len(self.world.workers())):
            stats = ask_stats(self.world.url)
            if stats is None:
                yield "/stats does not answer"
                return
            self.watch.look(stats)
            if problems := unsettled(stats):
                yield from problems
                return
        for judgement in self._judgements():
            if judgement.missing:
                yield f"{judgement.sink} misses {len(judgement.missing)}"
            if judgement.undead:
                yield f"{judgement.sink} has {len(judgement.undead)} poisoned records to settle"

    def _pass_a_fresh_record(self) -> None:
        connection = Connection(lambda: self.world.url)
        deadline = time.monotonic() + _FRESH_S
        said = ""
        while time.monotonic() < deadline:
            records = self.oracle.issue(1)
            request = Request(
                records=records, ack="stored", body=json.dumps(records).encode(),
                headers={"Content-Type": "application/json"}, key="",
            )  # fmt: skip
            try:
                status, answer = connection.post(request)
                said = f"{status} {answer}"[:300]
            except Exception as error:
                connection.close()
                status, answer, said = 0, {}, repr(error)
            if status == 202:
                self.oracle.accepted(records, answer, asked="stored")
                if answer["ack"] == "stored":
                    break
            time.sleep(_LOOK_S)
        else:
            self.outcome.problems.append(f"no fresh record was stored in {_FRESH_S:g} s: {said}")
        connection.close()

    def _judgements(self) -> list[Judgement]:
        world, oracle = self.world, self.oracle
        letters = world.letters()
        refused = oracle.poison_refused
        return [
            oracle.judge(
                DATABASE,
                world.stored_in_database(),
                once=True,
                refuses_poison=refused,
                letters=letters.get(DATABASE),
            ),
            oracle.judge(
                THIRD_PARTY,
                world.stored_in_files(world.third_party),
                once=False,
                refuses_poison=True,
                letters=letters.get(THIRD_PARTY),
            ),
            oracle.judge(
                FILES,
                world.stored_in_files(world.files),
                once=False,
                refuses_poison=False,
                letters=letters.get(FILES),
            ),
        ]

    def _judge(self) -> None:
        """After a stop, when nothing can come or go any more."""
        for _ in range(2 * len(self.world.workers())):
            stats = ask_stats(self.world.url)
            if stats is not None:
                self._look_for_drops(stats)
        status = self.world.terminate()
        if status != 0:
            self.outcome.problems.append(f"the last stop ended with status {status}")
        self.outcome.judgements = self._judgements()
        for judgement in self.outcome.judgements:
            self.outcome.problems += judgement.faults

    def _look_for_drops(self, stats: dict[str, Any]) -> None:
        allowed = {"corrupt"} if self.outcome.fault == "torn_log" else set()
        for _, row in ledgers(stats):
            if unexpected := {k: n for k, n in row["dropped"].items() if n and k not in allowed}:
                self.outcome.problems.append(f"{row['sink']} dropped records: {unexpected}")
