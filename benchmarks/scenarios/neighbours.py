"""One tenant floods while another sends a record now and then: what the quiet one notices of it.

Both send to one server and one sink, whose speed is given.  The flood is twice what the sink takes,
by clients that come back when Retry-After says.  Two figures: the time to the acknowledgement (the
record is on the disk), and the time until the record is stored, which a quiet sink's batch waits
`max_wait_s` for.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figure import Figure
from benchmarks.load import GeneratorProcess
from benchmarks.plan import Plan
from benchmarks.server import Server, ServerFailed

SINK_RECORDS_PER_S = 20_000
FLOOD_BATCH = 200
RAMP_S = 3.0
TENANT = "quiet"
KEYS_S = 4.0
_ALLOWED = {"COLLECTOR_SINK_ALLOWED_PATHS": "sinks.backends.*,benchmarks.slow.*"}
_SLOW = {
    "name": "slow",
    "backend": "benchmarks.slow.SlowSink",
    "options": {"records_per_s": SINK_RECORDS_PER_S},
    "pipeline": {"capacity_records": SINK_RECORDS_PER_S, "max_records": 500, "max_wait_s": 0.2},
}


def measure(plan: Plan) -> list[Figure]:
    figures = {
        measured: Figure(
            name=f"a quiet tenant's record, {what}, beside a flood (median)",
            unit="us",
            goal=2.0,
            at_most=True,
            baseline_name="without the flood",
        )
        for measured, what in ((_acknowledged, "acknowledged"), (_stored, "stored"))
    }
    count = 40 if plan.quick else 150
    for repetition in range(plan.repetitions):
        plan.say(f"neighbours: repetition {repetition + 1} of {plan.repetitions}")
        with Server(sinks=[_SLOW], environ=_ALLOWED, with_key=True) as server:
            quiet = _Quiet(server)
            alone = {measured: quiet.times(measured, count) for measured in figures}
            flood = {
                "url": server.url,
                "records": SINK_RECORDS_PER_S * 120,
                "batch": FLOOD_BATCH,
                "clients": 8,
                "rate": SINK_RECORDS_PER_S * 2.0,
                "duration_s": 120.0,
                "api_key": server.key,
            }
            with GeneratorProcess(**flood) as generator:
                generator.go()
                time.sleep(RAMP_S)
                beside = {measured: quiet.times(measured, count) for measured in figures}
                generator.stop()
                result = generator.result()
            if not result["statuses"].get("429"):
                raise ServerFailed(f"the flood was none: {result}")
            for measured, figure in figures.items():
                figure.add(median(beside[measured]), median(alone[measured]))
                figure.notes = {
                    "p95_us": round(_p95(beside[measured])),
                    "p95_us_without": round(_p95(alone[measured])),
                    "flood_refused_requests": result["statuses"]["429"],
                }
    return list(figures.values())


class _Quiet:
    """A tenant of its own that sends a record at a time; none may be refused."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._headers = {
            "Authorization": f"Bearer {_key(server, TENANT)}",
            "Content-Type": "application/json",
        }
        address = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=30
        )
        self.sent = 0

    def send(self) -> None:
        self._connection.request("POST", "/logs", '{"message": "quiet"}', self._headers)
        answer = self._connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        if answer.status != 202 or said["ack"] != "wal":
            raise ServerFailed(f"the quiet tenant was answered {answer.status}: {said}")
        self.sent += 1

    def await_stored(self) -> None:
        """Until all that was sent is stored, as the ledger says."""
        while True:
            for row in self._server.stats()["ledger"]:
                if row["tenant"] == TENANT and row["stored"] >= self.sent:
                    return
            time.sleep(0.002)

    def times(self, measured: Callable[[_Quiet], None], count: int) -> list[float]:
        """Microseconds, one after the other, with a pause in between."""
        taken = []
        for _ in range(count + 5):
            began = time.perf_counter()
            measured(self)
            taken.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.05)
        self.await_stored()
        return taken[5:]


def _acknowledged(quiet: _Quiet) -> None:
    quiet.send()


def _stored(quiet: _Quiet) -> None:
    quiet.send()
    quiet.await_stored()


def _key(server: Server, tenant: str) -> str:
    said = server.run("manage.py", "apikey", "create", tenant, "--tenant", tenant, "--json")
    key = str(json.loads(said.splitlines()[-1])["token"])
    time.sleep(KEYS_S)  # the server looks for new keys now and then
    return key


def _p95(values: list[float]) -> float:
    return sorted(values)[round((len(values) - 1) * 0.95)]
