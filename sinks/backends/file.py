"""Records in files, one JSON object a line, under paths made of date, tenant, service and the like.

Dates are those of arrival: a record dated 1970 opens no file of its own.  Each batch is one append
per file; with gzip it is one member, so that a file can be read at any time, also after a crash.
Workers write at once, to different files without waiting for each other.

The thread "sink-files-<name>" syncs, rotates by age and closes unused files; it runs from `open` to
`close`.  `_life` guards the keeper's coming and going; `_done` and `_services` are touched by
single operations only, and a race for them costs a repeated append or a file name, no record.
"""

from __future__ import annotations

import errno
import gzip
import logging
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from django.conf import settings
from msgspec import Meta

from pipeline.errors import RetryableError, SinkError, SinkFault
from pipeline.record import Batch, Part, Record
from pipeline.runtime.clock import Clock, SystemClock
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.files.lines import Lines, envelope_lines, payload_lines
from sinks.files.livefile import FilePolicy
from sinks.files.openfiles import OpenFiles
from sinks.files.template import PathTemplate, TemplateError, inert
from sinks.options import SinkOptions

logger = logging.getLogger(__name__)

_HOUR_US = 3_600_000_000
_OTHER = "_other"
_BATCHES_FOLLOWED = 1_024
_FAULTS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
     errno.ELOOP, errno.EINVAL}
)  # fmt: skip


class FileOptions(SinkOptions, frozen=True, kw_only=True):
    directory: Annotated[
        str,
        Meta(min_length=1, description="Where the files go; relative to the data directory."),
    ] = "records"
    path: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=300,
            description="Path below the directory, with {date} {hour} {tenant} {service} {type} "
            "{worker}.",
        ),
    ] = "{type}/{date}.ndjson"
    format: Annotated[
        Literal["envelope", "payload"],
        Meta(description="envelope adds id, tenant and arrival; payload is the JSON as sent."),
    ] = "envelope"
    compression: Literal["none", "gzip"] = "none"
    gzip_level: Annotated[int, Meta(ge=1, le=9, description="1 is fast, 9 is small.")] = 3
    rotate_bytes: Annotated[
        int, Meta(ge=0, description="A file is put aside before it grows beyond; 0: never.")
    ] = 256 * 1024 * 1024
    rotate_age_s: Annotated[
        float, Meta(ge=0, description="A file is put aside when it is this old; 0: never.")
    ] = 0.0
    fsync: Annotated[
        Literal["never", "interval", "batch"],
        Meta(description="batch: a stored record survives a power cut; slower."),
    ] = "interval"
    fsync_interval_s: Annotated[float, Meta(ge=0.05, le=3600)] = 1.0
    max_open_files: Annotated[int, Meta(ge=1, le=1000)] = 64
    idle_close_s: Annotated[
        float, Meta(ge=1, description="An unused file is closed after so many seconds.")
    ] = 60.0
    max_services: Annotated[
        int,
        Meta(ge=1, le=100_000, description="With {service}: further names share the file _other."),
    ] = 1_000

    def __post_init__(self) -> None:
        try:
            PathTemplate(self.path)
        except TemplateError as error:
            raise ValueError(f"path: {error}") from None


class FileSink(BaseSink[FileOptions]):
    """Appends records to files."""

    Options: ClassVar[type[SinkOptions]] = FileOptions
    label = "Files"
    description = "NDJSON files with rotation, optional gzip and a choice of when to sync."
    supports_probe = True

    def __init__(self, options: FileOptions, *, name: str = "", clock: Clock | None = None) -> None:
        super().__init__(options, name=name)
        self._clock = clock or SystemClock()
        self._directory = Path(settings.COLLECTOR.server.data_dir) / options.directory
        text = options.path
        if options.compression == "gzip" and not text.endswith(".gz"):
            text += ".gz"
        self._template = PathTemplate(text)
        self._lines: Lines = envelope_lines if options.format == "envelope" else payload_lines
        self._files = OpenFiles(
            directory=self._directory,
            policy=FilePolicy(
                rotate_bytes=options.rotate_bytes,
                rotate_age_s=options.rotate_age_s,
                sync_each=options.fsync == "batch",
                sync_on_close=options.fsync != "never",
                lines=options.compression == "none",
            ),
            most=options.max_open_files,
            clock=self._clock,
        )
        self._path_of = lru_cache(maxsize=4096)(self._render)
        self._services: set[str] = set()
        self._done: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._life = threading.Condition()
        self._keeper: threading.Thread | None = None
        self._closing = False

    def checks(self) -> list[str]:
        risks = []
        if self.options.fsync == "never":
            risks.append(
                "fsync is never: a power cut takes what the system had not written by itself"
            )
        if self.options.format == "payload":
            risks.append(
                "format is payload: a line that was written twice, as a crash may cause, has no id "
                "to know it by"
            )
        return risks

    def open(self) -> None:
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise as_sink_error(error, doing=f"making {self._directory}") from error
        with self._life:
            if self._keeper is not None:
                return
            self._closing = False
            self._keeper = threading.Thread(
                target=self._keep, name=f"sink-files-{self.name}", daemon=True
            )
            self._keeper.start()

    def write(self, batch: Batch) -> Written:
        # A batch that failed in its third file is not written to the first two again.
        key = (batch.log_id, batch.number)
        done = self._done.pop(key, 0)
        groups = self._group(batch)
        for number, (relative, pieces) in enumerate(groups.items()):
            if number < done:
                continue
            data = b"".join(pieces)
            if self.options.compression == "gzip":
                data = gzip.compress(data, self.options.gzip_level, mtime=0)
            try:
                self._files.get(relative).append(data)
            except OSError as error:
                self._done[key] = number
                if len(self._done) > _BATCHES_FOLLOWED:
                    self._done.popitem(last=False)
                raise as_sink_error(error, doing=f"writing {relative}") from error
        return Written(stored=batch.count)

    def probe(self, batch: Batch) -> str:
        trial = self._directory / f".probe-{uuid.uuid4().hex}"
        try:
            with trial.open("xb") as file:
                file.write(b"".join(self._lines(part, part.records) for part in batch.parts))
                file.flush()
                os.fsync(file.fileno())
            trial.unlink()
        except OSError as error:
            raise as_sink_error(error, doing=f"writing in {self._directory}") from error
        return f"A marked line was written in {self._directory}, synced, and removed."

    def close(self) -> None:
        with self._life:
            keeper, self._keeper = self._keeper, None
            self._closing = True
            self._life.notify_all()
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(timeout=10)
        try:
            self._files.close()
        except OSError as error:
            raise as_sink_error(error, doing="closing files") from error

    def tend(self) -> None:
        """What the keeper does each time: sync, rotate by age, close the unused."""
        sync = self.options.fsync == "interval"
        for error in self._files.tend(idle_s=self.options.idle_close_s, sync=sync):
            logger.error("a file of sink %s: %s", self.name, error)

    def rotate(self) -> None:
        """Put every live file aside now."""
        self._files.rotate()

    # --- grouping --------------------------------------------------------------------------

    def _group(self, batch: Batch) -> dict[str, list[bytes]]:
        """The bytes for each file, in the order in which the batch first names it."""
        worker = threading.current_thread().name if "worker" in self._template.fields else ""
        groups: dict[str, list[bytes]] = {}
        for part in batch.parts:
            hour = part.received_us // _HOUR_US
            for service, records in self._by_service(part):
                relative = self._path_of(hour, part.type, part.tenant, service, worker)
                groups.setdefault(relative, []).append(self._lines(part, records))
        return groups

    def _by_service(self, part: Part) -> Sequence[tuple[str, Sequence[Record]]]:
        if "service" not in self._template.fields:
            return [("", part.records)]
        by_service: dict[str, list[Record]] = {}
        for record in part.records:
            by_service.setdefault(self._known(record.service), []).append(record)
        return list(by_service.items())

    def _known(self, service: str) -> str:
        """The service, or `_other` once there are too many names to make a file for each."""
        if service in self._services:
            return service
        if len(self._services) >= self.options.max_services:
            return _OTHER
        self._services.add(service)
        return service

    def _render(self, hour: int, type: str, tenant: str, service: str, worker: str) -> str:
        arrival = datetime.fromtimestamp(hour * 3600, UTC)
        return self._template.render(
            {
                "date": f"{arrival:%Y-%m-%d}",
                "hour": f"{arrival:%H}",
                "type": inert(type),
                "tenant": inert(tenant),
                "service": service if service == _OTHER else inert(service),
                "worker": inert(f"{os.getpid()}-{worker}"),
            }
        )

    def _keep(self) -> None:
        interval_s = self.options.fsync_interval_s if self.options.fsync == "interval" else 5.0
        while True:
            with self._life:
                if not self._closing:
                    self._clock.wait(self._life, interval_s)
                if self._closing:
                    return
            self.tend()


def as_sink_error(error: OSError, *, doing: str) -> SinkError:
    """No permission and impossible paths are the sink's fault; a full disk passes."""
    text = f"{doing}: {error.strerror or error}"
    return SinkFault(text) if error.errno in _FAULTS else RetryableError(text)
