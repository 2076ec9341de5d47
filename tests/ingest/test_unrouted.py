"""Records that no required sink takes: accepted, as the routes say, and never called stored."""

from __future__ import annotations

import json
from typing import Any

from pipeline.intake.router import Route
from pipeline.settings import PipelineSettings
from pipeline.spec import PipelineSpec
from sinks.backends.memory import MemorySink
from tests.ingest.front import Front


def _told(front: Front, body: Any) -> dict[str, Any]:
    response = front.post("/logs?ack=stored", body)
    assert response.status_code == 202, response.content
    told: dict[str, Any] = json.loads(response.content)
    return told


def test_stored_is_not_said_of_what_no_required_sink_takes(front: Front) -> None:
    errors = MemorySink()
    front.engine.configure(
        [
            PipelineSpec(
                key="errors",
                name="errors",
                sink_factory=lambda: errors,
                route=Route(types=None, tenants=None, min_severity=17),
                required=True,
                paused=False,
                settings=PipelineSettings(),
                fingerprint="errors",
            )
        ]
    )
    told = _told(front, {"level": "INFO"})
    assert (told["accepted"], told["ack"], told["unstored"]) == (1, "memory", 1)
    told = _told(front, [{"level": "INFO"}, {"level": "ERROR"}])
    # The log keeps what a sink is to have; `unstored` tells of the rest.
    assert (told["accepted"], told["ack"], told["unstored"]) == (2, "wal", 1)
    told = _told(front, {"level": "ERROR"})
    assert (told["ack"], "unstored" in told) == ("stored", False)
