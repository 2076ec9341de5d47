"""`/probe` against real listeners: metrics, for whoever may ask, and nobody else's secrets."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from healthmon.api import probe
from healthmon.probes.kind import Result
from healthmon.targets.models import Target
from healthmon.targets.options import set_options

pytestmark = pytest.mark.django_db


class _Answering(http.server.BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        self.server.seen.append(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        self.send_response(503 if self.path == "/bad" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def listener() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(180)


def url(server, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def figures(answer) -> dict[str, float]:
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def test_a_success(api, listener):
    found = figures(api("GET", f"/probe?target={url(listener)}&module=http"))
    assert found["probe_success"] == 1
    assert found["probe_http_status_code"] == 200
    assert 0 < found["probe_duration_seconds"] < 10
    assert found["probe_ip_protocol"] == 4
    assert "probe_http_duration_secondsconnect" in found


def test_a_failure_is_an_answer_as_well(api, listener):
    found = figures(api("GET", f"/probe?target={url(listener, '/bad')}"))
    assert (found["probe_success"], found["probe_http_status_code"]) == (0, 503)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = figures(api("GET", f"/probe?target=127.0.0.1:{port}&module=tcp"))
    assert found["probe_success"] == 0
    assert "probe_http_status_code" not in found


def test_what_scrapers_send_is_understood(api, listener):
    answer = api(
        "GET",
        f"/probe?target={url(listener)}",
        **{
            "Accept": "application/openmetrics-text;version=1.0.0",
            "X-Prometheus-Scrape-Timeout-Seconds": "5",
        },
    )
    assert figures(answer)["probe_success"] == 1


def test_a_target_by_its_name(api, listener):
    row = Target(name="shop", kind="http", address=url(listener))
    set_options(row, {"bearer_token": "hunter2"})
    row.save()
    for query in ("module=shop", "module=shop&target=shop", f"module=shop&target={url(listener)}"):
        assert figures(api("GET", f"/probe?{query}"))["probe_success"] == 1
    assert listener.seen == ["Bearer hunter2"] * 3


def test_secrets_go_to_their_own_address_only(api, listener):
    row = Target(name="shop", kind="http", address="http://127.0.0.1:9/")
    set_options(row, {"bearer_token": "hunter2"})
    row.save()
    answer = api("GET", f"/probe?module=shop&target={url(listener)}")
    assert answer.status_code == 400
    assert "own address" in str(answer.json()["errors"]["target"])
    assert listener.seen == []
    set_options(row, {"bearer_token": "env:SHOP_TOKEN"})
    row.save()
    assert api("GET", f"/probe?module=shop&target={url(listener)}").status_code == 400
    assert listener.seen == []


@pytest.mark.parametrize(
    "query",
    ["", "module=http", "target=x&module=gopher", "target=nonsense&module=http",
     "target=x&module=heartbeat", "target=127.0.0.1:1&module=tcp&timeout=0",
     "target=127.0.0.1:1&module=tcp&timeout=nan", "target=127.0.0.1:1&module=tcp&timeout=61",
     "module=tcp&target=" + "a" * 2001],
)  # fmt: skip
def test_wrong_questions(api, query):
    answer = api("GET", f"/probe?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_addresses_that_are_always_denied(api):
    found = figures(api("GET", "/probe?target=http://169.254.169.254/latest&module=http"))
    assert found["probe_success"] == 0


def test_who_may_ask(api, api_with, listener):
    path = f"/probe?target={url(listener)}"
    assert api_with("read")("GET", path).status_code == 200
    assert api_with("admin")("GET", path).status_code == 200
    assert api_with("logs")("GET", path).status_code == 403
    assert api("GET", path).status_code == 401
    assert len(listener.seen) == 2


def test_so_many_at_once(api, listener, monkeypatch):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*args: object) -> Result:
        begun.release()
        assert go_on.wait(180)
        return Result(total_ms=1.0)

    monkeypatch.setattr(probe, "_run", slow)
    monkeypatch.setattr(probe, "AT_ONCE", 2)
    assert probe._enter()
    assert probe._enter()
    answer = api("GET", f"/probe?target={url(listener)}")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_probes")
    assert answer["Retry-After"] == "1"
    probe._leave()
    go_on.set()
    assert api("GET", f"/probe?target={url(listener)}").status_code == 200
    probe._leave()
    assert probe._running == 0
