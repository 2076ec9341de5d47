"""Owns: the records that benchmarks send: about 190 bytes each, made before the clock starts."""

from __future__ import annotations

import json
import random

BODIES = 40

_METHODS = ("GET", "POST", "PUT", "DELETE")
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "INFO", "WARN", "ERROR")
_SERVICES = ("checkout", "cart", "search", "billing", "gateway")


def record(rng: random.Random, n: int) -> bytes:
    return json.dumps(
        {
            "timestamp": f"2026-01-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:07.{n % 1000:03}Z",
            "level": rng.choice(_LEVELS),
            "service": rng.choice(_SERVICES),
            "message": f"{rng.choice(_METHODS)} /api/v1/orders/{rng.randrange(10**6)} took "
            f"{rng.randrange(900)} ms for user {rng.randrange(10**5)}",
            "trace_id": f"{rng.getrandbits(128):032x}",
        },
        separators=(",", ":"),
    ).encode()


def bodies(batch: int, *, count: int = BODIES, seed: int = 7) -> list[bytes]:
    """NDJSON bodies (one JSON object when the batch is one), a few different ones."""
    rng = random.Random(seed)
    return [b"\n".join(record(rng, i * batch + n) for n in range(batch)) for i in range(count)]
