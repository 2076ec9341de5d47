"""What a test of the API holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.test import Client

if TYPE_CHECKING:
    from pipeline.engine import Engine
    from sinks.backends.memory import MemorySink


@dataclass
class Front:
    """A client of the API, the sink in which records end, and a way to set the limits."""

    client: Client
    sink: MemorySink
    engine: Engine
    limits: Callable[..., None]

    def post(
        self,
        path: str,
        body: Any,
        content_type: str = "application/json",
        **headers: Any,
    ) -> HttpResponse:
        if isinstance(body, dict | list):
            body = json.dumps(body)
        return self.client.post(path, body, content_type=content_type, headers=headers)  # type: ignore[return-value]
