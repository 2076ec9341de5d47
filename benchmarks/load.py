"""Owns: starting generator processes, all ready before the first sends, and their results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class GeneratorProcess:
    """Made ready by the constructor; sends when told to; ended by its own bounds or by `stop`."""

    def __init__(self, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.generate", json.dumps(options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the generator did not start; its error is above")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.terminate()

    def result(self, timeout_s: float = 600.0) -> dict[str, Any]:
        out, _ = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise RuntimeError(f"the generator failed with status {self._process.returncode}")
        result: dict[str, Any] = json.loads(out)
        return result

    def __enter__(self) -> GeneratorProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def run_load(**options: Any) -> dict[str, Any]:
    with GeneratorProcess(**options) as generator:
        generator.go()
        return generator.result()
