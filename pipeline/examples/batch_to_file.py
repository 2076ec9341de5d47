"""Batches to a file that cannot be written at first: they are tried again until it can.

python batch_to_file.py out/records.ndjson

Without a path it writes to a new directory for temporary files, and says where.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from pipeline import (
    INFO,
    Batch,
    Engine,
    Observer,
    PipelineSettings,
    PipelineSpec,
    Record,
    RecordIds,
    RetryableError,
    RetryPolicy,
    Sink,
)


class FileSink(Sink):
    """A line a record; a batch is in the file, and on disk, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, batch: Batch) -> None:
        lines = b"".join(record.payload + b"\n" for record in batch.records)
        try:
            with self._path.open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    if file.write(lines) < len(lines):
                        raise OSError("the disk is full")
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)  # the next attempt writes the whole batch
                    raise
        except OSError as error:
            raise RetryableError(f"{self._path}: {error.strerror or error}") from error


class Retries(Observer):
    """Says when a batch waits for its next attempt."""

    def __init__(self) -> None:
        self.first = threading.Event()

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        print(f"batch {batch.number}, attempt {batch.attempt}: {error}")
        self.first.set()


def main(path: Path) -> None:
    retries = Retries()
    settings = PipelineSettings(
        max_records=10,
        max_workers=1,  # a file has one writer
        retry=RetryPolicy(base_s=0.05, cap_s=1.0),  # for ever; `max_attempts` bounds it
    )
    engine = Engine(log_id="example", ids=RecordIds(node=0))
    engine.observe(retries)
    engine.configure(
        [PipelineSpec(key="1", name="file", sink_factory=lambda: FileSink(path), settings=settings)]
    )
    engine.start()
    for number in range(25):
        payload = b'{"number":%d}' % number
        record = Record(time.time_ns() // 1000, INFO, "example", "", "", "", payload)
        receipt = engine.offer(type="log", tenant="me", records=[record])
    if not path.parent.exists():
        retries.first.wait(5.0)
        path.parent.mkdir(parents=True)
    receipt.wait(5.0)
    assert engine.stop(timeout_s=5.0), "something was left undelivered"
    print(f"{len(path.read_bytes().splitlines())} lines in {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp() + "/out/records.ndjson"))
