"""Tracing: nothing when off; spans at a real OTLP endpoint when on."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector_site.tracing import TracingService, traces_url
from control.config.settings import TracingSettings
from tests.servers.collector import ROOT, clean_environ

SPAN = """
import os
from collector_site.tracing import TracingService
from control.config.settings import TracingSettings
service = TracingService(settings=TracingSettings(otlp_endpoint=os.environ["ENDPOINT"]))
service.start("test")
service.start("test")
from opentelemetry import trace
with trace.get_tracer("t").start_as_current_span("batch"):
    pass
service.stop(10)
"""


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_spans_arrive_before_the_stop_returns(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.received = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        subprocess.run(
            (sys.executable, "-c", SPAN),
            cwd=ROOT,
            env=clean_environ(tmp_path, {"ENDPOINT": endpoint}),
            check=True,
            timeout=120,
        )
        server.shutdown()
        thread.join()
        ((path, body),) = server.received  # type: ignore[attr-defined]
    assert path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(_inflated(body))
    (resource,) = request.resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "collector"
    assert [span.name for span in resource.scope_spans[0].spans] == ["batch"]


def _inflated(body: bytes) -> bytes:
    import gzip

    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def test_off_imports_nothing_of_the_sdk(tmp_path: Path) -> None:
    code = """
import django, sys
django.setup()
from control.processes import lifecycle
service = lifecycle.services().get("tracing")
service.start("test")
service.stop(1)
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""
    environ = clean_environ(tmp_path, {"DJANGO_SETTINGS_MODULE": "collector_site.settings"})
    subprocess.run((sys.executable, "-c", code), cwd=ROOT, env=environ, check=True, timeout=120)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://h:4318", "http://h:4318/v1/traces"),
        ("http://h:4318/", "http://h:4318/v1/traces"),
        ("https://h/otlp/traces", "https://h/otlp/traces"),
    ],
)
def test_a_bare_endpoint_gets_the_usual_path(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


def test_off_can_be_started_and_stopped_at_any_time() -> None:
    service = TracingService(settings=TracingSettings())
    service.stop(0)
    service.start("test")
    service.after_fork()
    service.stop(0)
