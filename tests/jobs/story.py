"""Jobs as a new user tries them, with everything going wrong at once, judged from outside.

    .venv/bin/python -m tests.jobs.story --jobs 1000 [--postgresql] [--seed N]

A type with three downstream calls, 30 % of which fail; one of the three services down for a while;
two runners, one of them killed in the middle.  The judge is each service's own journal: what it was
asked, with which token, and what it answered.  Used by the suite in a short form.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from jobs.toy.behaviour import Behaviour
from jobs.toy.server import Toy
from tests.servers.collector import ROOT, CollectorServer

RUNNER = (sys.executable, "manage.py", "run_jobs")
STEPS = ("document", "face", "sanctions")
DOWN = "face"
TYPE = "onboarding"
FINISHED = {"succeeded", "dead", "cancelled", "discarded"}

MAKE_TYPE = """
import json
from jobs.models import DownstreamService, JobType, TypeStep
told = json.loads({told!r})
type = JobType.objects.create(name={type!r}, max_attempts=8, backoff_base_s=told["backoff_s"],
                              backoff_cap_s=max(5, told["backoff_s"]))
for stage, (name, url) in enumerate(told["services"], 1):
    service = DownstreamService.objects.create(name=name, base_url=url,
                                               breaker_open_s=told["open_s"], timeout_s=30)
    TypeStep.objects.create(type=type, stage=stage, name=name, downstream=service,
                            method="POST", path="/" + name + "/{{payload.user_id}}")
"""


@dataclass(kw_only=True)
class Report:
    jobs: int
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    repeated: int = 0  # calls of a step that had succeeded before
    completed_twice: int = 0
    breakers: list[str] = field(default_factory=list)  # of the service that was down, as seen
    in_flight: int = 0
    rescued: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs in {self.seconds:.0f} s: {dict(self.states)}, "
            f"reasons {dict(self.reasons)}; {self.in_flight} in the killed runner's hands, "
            f"{self.rescued} rescued, {self.repeated} calls repeated that had succeeded, "
            f"{self.completed_twice} completed twice; the breaker was {', '.join(self.breakers)}"
        )


@dataclass(kw_only=True)
class Story:
    """The processes of one run; `server` runs already."""

    server: CollectorServer
    runners: Sequence[CollectorServer]
    jobs: int = 1000
    fail_rate: float = 0.3
    down_for_s: float = 30.0
    open_s: float = 10.0
    backoff_s: float = 0.5
    latency_s: float = 0.005
    seed: int = 1
    patience_s: float = 600.0

    def run(self) -> Report:
        with ExitStack() as stack:
            toys = {name: stack.enter_context(self._toy(name)) for name in STEPS}
            self._make_type({name: toy.url for name, toy in toys.items()})
            client = self.server.client()
            began = time.monotonic()
            report = Report(jobs=self.jobs)
            for runner in self.runners:
                runner.spawn()
            ids = self._submit(client, 0, self.jobs // 10)
            self._until(lambda: self._ended() == len(ids), report)
            ids += self._through_an_outage(client, toys[DOWN], report)
            self._until(lambda: self._ended() >= self.jobs // 5, report)
            report.in_flight = self._kill_first()
            self._until(lambda: self._ended() == self.jobs, report)
            report.seconds = time.monotonic() - began
            self._judge(client, ids, toys, report)
            return report

    # --- acts ------------------------------------------------------------------------------

    @contextmanager
    def _toy(self, name: str) -> Iterator[Toy]:
        toy = Toy(
            behaviour=Behaviour(
                fail_rate=self.fail_rate,
                latency_s=(self.latency_s, self.latency_s),
                seed=self.seed + STEPS.index(name),
            )
        )
        toy.start()
        try:
            yield toy
        finally:
            toy.stop()

    def _make_type(self, urls: dict[str, str]) -> None:
        told = json.dumps(
            {"services": list(urls.items()), "open_s": self.open_s, "backoff_s": self.backoff_s}
        )
        self._manage("shell", "-c", MAKE_TYPE.format(told=told, type=TYPE))

    def _manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.server.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _submit(self, client: httpx.Client, first: int, end: int) -> list[str]:
        ids: list[str] = []
        due = time.monotonic() + self.patience_s
        while (number := first + len(ids)) < end:
            answer = client.post(
                "/jobs",
                json={"type": TYPE, "payload": {"user_id": number}},
                headers={"X-Correlation-ID": f"story-{number}", "Idempotency-Key": f"s-{number}"},
            )
            # The server learns of a new type within two seconds.
            if answer.status_code == 422 and time.monotonic() < due:
                time.sleep(0.2)
                continue
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        return ids

    def _through_an_outage(self, client: httpx.Client, toy: Toy, report: Report) -> list[str]:
        """Down for `down_for_s` at least, and until a breaker was seen open."""
        toy.go_down(self.patience_s)
        over = time.monotonic() + self.down_for_s
        ids = self._submit(client, self.jobs // 10, self.jobs)
        self._until(lambda: "open" in report.breakers and time.monotonic() >= over, report)
        toy.come_up()
        return ids

    def _ended(self) -> int:
        return sum(self._counts().get(state, 0) for state in FINISHED)

    def _counts(self) -> dict[str, int]:
        from tests.healthmon.checker.watched import rows

        return dict(rows(self.server, "SELECT state, count(*) FROM jobs_job GROUP BY state"))

    def _until(self, true: Callable[[], bool], report: Report) -> None:
        due = time.monotonic() + self.patience_s
        while not true():
            assert time.monotonic() < due, f"it did not end in time: {self._counts()}; {report}"
            self._look_at_the_breaker(report.breakers)
            time.sleep(0.1)

    def _look_at_the_breaker(self, seen: list[str]) -> None:
        """Note the worst that a living runner says of it, when that has changed."""
        from tests.healthmon.checker.watched import rows

        said: set[str] = set()
        for figures, pid in rows(self.server, "SELECT figures, pid FROM jobs_runner"):
            if pid not in {runner.pid for runner in self.runners if runner.alive}:
                continue
            document = json.loads(figures) if isinstance(figures, str) else figures
            for one in document.get("downstreams", []):
                if one["name"] == DOWN:
                    said.add(str(one["breaker"]))
        state = next((one for one in ("open", "half_open", "closed") if one in said), None)
        if state is not None and seen[-1:] != [state]:
            seen.append(state)

    def _kill_first(self) -> int:
        from tests.healthmon.checker.watched import rows

        victim = self.runners[0]
        victim.kill()
        (held,) = rows(
            self.server,
            "SELECT count(*) FROM jobs_job j JOIN jobs_runner r ON r.id = j.runner"
            f" WHERE j.state = 'running' AND r.pid = {victim.pid}",
        )
        return int(held[0])

    # --- judgement -------------------------------------------------------------------------

    def _judge(
        self, client: httpx.Client, ids: list[str], toys: dict[str, Toy], report: Report
    ) -> None:
        from tests.healthmon.checker.watched import rows

        report.states = Counter(self._counts())
        report.reasons = Counter(
            dict(rows(self.server, "SELECT reason, count(*) FROM jobs_job WHERE state = 'dead'"
                                   " GROUP BY reason"))
        )  # fmt: skip
        report.completed_twice = len(
            rows(
                self.server,
                "SELECT job_id FROM jobs_jobevent WHERE state = 'succeeded'"
                " GROUP BY job_id HAVING count(*) > 1",
            )
        )
        for name, toy in toys.items():
            succeeded: Counter[str] = Counter()
            for call in toy.journal.lines(limit=1_000_000):
                token = str(call["token"])
                assert token, f"{name} was called without a token: {call}"
                report.repeated += bool(succeeded[token])
                succeeded[token] += call["outcome"] == "ok"
            done = {token for token, count in succeeded.items() if count}
            assert len(done) >= report.states["succeeded"], f"{name} did less than was reported"
        (rescued,) = rows(
            self.server, "SELECT count(*) FROM jobs_jobevent WHERE text LIKE '%runner%died%'"
        )
        report.rescued = int(rescued[0])
        for job in random.Random(self.seed).sample(ids, min(5, len(ids))):
            document = client.get(f"/jobs/{job}").json()
            assert document["status"] in FINISHED, document
            names = {step["name"] for step in document["steps"]}
            assert names == set(STEPS) if document["status"] == "succeeded" else names, document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--down-for", type=float, default=30.0)
    options = parser.parse_args()
    from tests.servers.installation import prepare_installation
    from tests.servers.postgres import postgres

    with tempfile.TemporaryDirectory(prefix="collector-story-") as folder:
        environ = {"COLLECTOR_JOBS_LEASE_S": "3"}
        if options.postgresql:
            postgres.start()
            environ["COLLECTOR_DATABASE_URL"] = postgres.create_database()
        data_dir = Path(folder) / "data"
        prepare_installation(data_dir, environ)
        server = CollectorServer(data_dir=data_dir, environ=environ)
        runners = [
            CollectorServer(data_dir=data_dir, environ=environ, command=RUNNER) for _ in range(2)
        ]
        try:
            server.start()
            report = Story(
                server=server,
                runners=runners,
                jobs=options.jobs,
                seed=options.seed,
                down_for_s=options.down_for,
            ).run()
        finally:
            for process in (*runners, server):
                process.end()
            if options.postgresql:
                postgres.stop()
    print(report)
    share = report.states["succeeded"] / report.jobs
    kept = (
        sum(report.states.values()) == report.jobs
        and share >= 0.99
        and not report.completed_twice
        and report.repeated <= report.in_flight
        and "open" in report.breakers
        and set(report.reasons) <= {"attempts", "deadline", "lost"}
    )
    print("kept" if kept else "NOT KEPT")
    return os.EX_OK if kept else 1


if __name__ == "__main__":
    sys.exit(main())
