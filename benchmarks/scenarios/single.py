"""One record a request: the product's view with key, metrics and log, against a bare view."""

from __future__ import annotations

from benchmarks.figure import Figure
from benchmarks.load import run_load
from benchmarks.plan import Plan
from benchmarks.server import Server, ServerFailed

# Records are thrown away, so that storing them does not take the processor from the view.
_SINKS = [{"name": "null", "backend": "sinks.backends.null.NullSink"}]


def measure(plan: Plan) -> list[Figure]:
    figure = Figure(
        name="one record a request, with key check, metrics and log",
        unit="requests/s",
        goal=0.6,
        baseline_name="bare Django view on the same server",
    )
    with Server(sinks=_SINKS, with_key=True, application="benchmarks.bare:application") as server:
        for url in (server.url, server.url + "/bare"):
            _rate(server, url, plan.single_requests // 5, plan)
        for repetition in range(plan.repetitions):
            plan.say(f"single: repetition {repetition + 1} of {plan.repetitions}")
            # In turns, and the first in turns as well: the second of a pair may find caches warm.
            urls = [server.url, server.url + "/bare"]
            order = urls if repetition % 2 == 0 else urls[::-1]
            rates = {url: _rate(server, url, plan.single_requests, plan) for url in order}
            figure.add(rates[urls[0]], rates[urls[1]])
    return [figure]


def _rate(server: Server, url: str, requests: int, plan: Plan) -> float:
    result = run_load(url=url, records=requests, clients=plan.clients, batch=1, api_key=server.key)
    if result["records_accepted"] != requests:
        raise ServerFailed(f"of {requests} requests to {url} not all were accepted: {result}")
    return float(result["requests_per_second"])
