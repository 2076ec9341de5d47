"""The file sink when there is no more room: a real limit of the kernel, in a process of its own.

The limit is on a file's size, so that a write is cut in its middle and the next one fails, as on a
full disk; raising it again is the room that somebody made.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMITED = """
import json, resource, sys
import django
from django.conf import settings
settings.configure(COLLECTOR=type("C", (), {"server": type("S", (), {"data_dir": "/nowhere"})}))
from pipeline.errors import RetryableError
from sinks.backends.file import FileOptions, FileSink
from sinks.options import decode_options
from tests.sinks.records import batch, batch_of_parts, record

options = json.loads(sys.argv[1])
most, step = map(int, sys.argv[2:])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
sink = FileSink(decode_options(FileOptions, options), name="files")
sink.open()
ids, failures = [], 0
for n in range(12):
    made = [[record({"n": k, "text": f"{n}-{k}-" * 20}) for k in range(60)] for _ in range(3)]
    sent = batch_of_parts(*made, tenants=["a", "b", "a"])
    for attempt in range(50):
        try:
            sink.write(sent)
            break
        except RetryableError:
            failures += 1
            if attempt % 3 == 2:  # room again, for a while
                most += step
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    else:
        raise SystemExit("it never recovered")
    ids += [str(r.id) for r in sent.records]
sink.close()
print(json.dumps({"ids": ids, "failures": failures}))
"""


@pytest.mark.parametrize(
    ("options", "most", "step"),
    [
        ({}, 100_000, 60_000),
        ({"path": "{tenant}/{type}.ndjson", "fsync": "batch"}, 100_000, 60_000),
        ({"compression": "gzip", "gzip_level": 1}, 2_000, 3_000),
        ({"path": "{tenant}.ndjson", "rotate_bytes": 90_000}, 50_000, 60_000),
    ],
    ids=["one file", "several files, synced", "gzip", "rotated"],
)
def test_a_full_disk_loses_nothing_and_stores_nothing_twice(tmp_path, options, most, step):
    directory = tmp_path / "out"
    given = json.dumps({"directory": str(directory), **options})
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, given, str(most), str(step)],
        check=True, timeout=100, capture_output=True, text=True,
    )  # fmt: skip
    told = json.loads(ended.stdout)
    assert told["failures"] > 2, "the disk was never full: the test proves nothing"
    assert sorted(ids(directory)) == sorted(told["ids"])


def ids(directory: Path) -> list[str]:
    """Every line must be whole; a torn one is no JSON."""
    found = []
    for path in directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            text = gzip.decompress(data) if path.suffix == ".gz" else data
            assert not text or text.endswith(b"\n")
            found += [json.loads(line)["id"] for line in text.splitlines()]
    return found
