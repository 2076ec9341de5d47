"""A generator process: load from bytes made beforehand, one JSON object of options in argv[1].

Prints one JSON object. Started by `benchmarks.load`; knows neither Django nor the product's code
beyond the client.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from typing import Any

from benchmarks.rows import bodies
from ingest.client.clock import SystemClock
from ingest.client.target import require_loopback, resolve
from ingest.loadtest.generator import Generator, Load
from ingest.loadtest.records import RecordMaker, Request


class MadeBefore(RecordMaker):
    """Bodies that were made before the clock started, in turns."""

    def __init__(self, *, path: str, batch: int, bad: bytes = b"") -> None:
        super().__init__(path=path, run="benchmark")
        self._bodies = bodies(batch, bad=bad)
        self._batch = batch

    def body(self, request: Request) -> bytes:
        return self._bodies[request.first // self._batch % len(self._bodies)]


def main(options: dict[str, Any]) -> None:
    target = resolve(options.pop("url"))
    require_loopback(target, allow_remote=False)
    path = options.pop("path", "/logs")
    bad = options.pop("bad", "").encode()
    load = Load(**options)
    if load.records % load.batch:
        raise SystemExit("records must be a multiple of batch: bodies are made beforehand")
    maker = MadeBefore(path=path, batch=load.batch, bad=bad)
    generator = Generator(
        target=target, load=load, maker=maker, clock=SystemClock(), rng=random.Random()
    )
    signal.signal(signal.SIGTERM, lambda *_: generator.stop())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()  # the starting shot
    started = time.time()
    cpu = time.process_time()
    tally = generator.run()
    result = tally.summary()
    result |= {"started": started, "finished": time.time(), "cpu": time.process_time() - cpu}
    print(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
