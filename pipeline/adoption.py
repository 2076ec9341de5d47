"""Adopting the logs of processes that are gone, and seeing them to their end.

One thread of the engine looks for orphans every `adopt_every_s` and reads them; delivering is the
pipelines' work.  `_lock` guards what was adopted; recovery and hooks run outside it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline.log.disk import Disk
from pipeline.log.files import Owned
from pipeline.log.log import Log
from pipeline.log.recovery import Recovered, Replay, recover
from pipeline.log.root import orphans
from pipeline.log.settings import LogSettings
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

# Called with a log's id and the keys of the frames in it.
Hook = Callable[[str, frozenset[str]], None]


class Adopted:
    """A log that was adopted.  `claimed` are the sinks whose pipelines deliver it."""

    def __init__(self, recovered: Recovered, adopted_us: int) -> None:
        self.log = recovered.log
        self.adopted_us = adopted_us
        self.lost_records = recovered.lost_records
        self.keys = recovered.keys
        self.claimed: set[str] = set()
        self._replays: dict[str, list[Replay]] = {}
        for replay in recovered.replays:
            self._replays.setdefault(replay.sink, []).append(replay)

    @property
    def sinks(self) -> set[str]:
        """The sinks that are owed something."""
        unread = {c.sink for c in self.log.cursors() if c.unread_records}
        return unread | self._replays.keys()

    def claim(self, sink: str) -> list[Replay]:
        """A pipeline takes the sink's part over: the batches that it delivers first."""
        self.claimed.add(sink)
        return self._replays.get(sink, [])

    def damage(self) -> Counter[str]:
        """What was found spoilt in it."""
        found = Counter(corrupt_records=self.lost_records)
        if self.log.files is not None:
            found.update(self.log.files.quarantine.stats())
        return found

    def unclaimed(self, sink: str) -> Counter[str]:
        """What waits for a sink without a pipeline, by tenant; the log's lock must be held."""
        count: Counter[str] = Counter()
        if sink not in self.claimed:
            for cursor in self.log.held_cursors():
                if cursor.sink == sink:
                    count += cursor.unread_tenants
            for replay in self._replays.get(sink, ()):
                count += replay.tenants
        return count


class Adoption:
    """The logs that this process has adopted; see the module's text."""

    def __init__(
        self,
        *,
        settings: LogSettings,
        clock: Clock,
        attach: Callable[[Adopted], None],
        finished: Callable[[Log], None],
        told: Callable[[str, int], None],
        disk: Disk | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._attach = attach
        self._finished = finished
        self._told = told
        self._disk = disk
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._finishing = threading.Lock()
        self._adopted: list[Adopted] = []
        self._hooks: list[Hook] = []
        self._unhooked: list[Adopted] = []
        self._wake = threading.Condition(self._lock)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.failed: dict[str, str] = {}  # logs that could not be read, and why
        self._past: Counter[str] = Counter()  # what was found spoilt in logs that are gone by now

    def on_adopted(self, hook: Hook) -> None:
        """Have `hook` called with each log's id and keys, until it does not raise."""
        self._hooks.append(hook)

    @property
    def adopted(self) -> list[Adopted]:
        with self._lock:
            return list(self._adopted)

    def start(self) -> None:
        with self._lock:
            if self._thread is not None or self._stopping:
                return
            self._thread = threading.Thread(target=self._run, name="log-adopter", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float | None) -> None:
        with self._lock:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("looking for the logs of dead processes failed")
            with self._lock:
                if not self._stopping:
                    self._wake.wait(self._settings.adopt_every_s)
                if self._stopping:
                    return

    def look(self) -> int:
        """Adopt every log that no process has; returns how many."""
        with self._turn:
            found = 0
            for owned in orphans(self._settings.directory):
                if self._stopping:
                    owned.release()
                    break
                found += self._adopt(owned)
            self._call_hooks()
            return found

    def _adopt(self, owned: Owned) -> int:
        name = owned.path.name
        try:
            recovered = recover(owned, settings=self._settings, clock=self._clock, disk=self._disk)
        except OSError as error:
            owned.release()
            if self.failed.get(name) != str(error):
                log.error("the log %s cannot be read, and waits: %s", owned.path, error)
            self.failed[name] = str(error)
            return 0
        except Exception as error:
            owned.release()
            log.exception("the log %s cannot be read, and waits", owned.path)
            self.failed[name] = f"{type(error).__name__}: {error}"
            return 0
        self.failed.pop(name, None)
        adopted = Adopted(recovered, self._clock.time_us())
        left = recovered.left
        log.warning("log %s of a process that is gone: %d records to deliver", name, left)
        with self._lock:
            self._adopted.append(adopted)
        self._unhooked.append(adopted)
        self._attach(adopted)
        self._told(name, left)
        return 1

    def _call_hooks(self) -> None:
        """What frames with keys stand for is recorded before their log may go."""
        for adopted in list(self._unhooked):
            try:
                for hook in self._hooks:
                    hook(adopted.log.log_id, adopted.keys)
            except Exception as error:
                log.warning(
                    "the keys of log %s are recorded later: %s: %s",
                    adopted.log.log_id,
                    type(error).__name__,
                    error,
                )
                continue
            for key in adopted.keys:
                adopted.log.key_recorded(key)
            self._unhooked.remove(adopted)

    def finish(self) -> None:
        """Let go of the logs that are settled."""
        with self._finishing:
            self._finish()

    def _finish(self) -> None:
        for adopted in self.adopted:
            if adopted in self._unhooked or not adopted.log.settled:
                continue
            self._finished(adopted.log)
            with self._lock:
                self._adopted.remove(adopted)
                self._past += adopted.damage()
            adopted.log.close()
            log.info("log %s is delivered and removed", adopted.log.log_id)

    def close(self) -> None:
        """Leave what is not settled to the next process."""
        with self._finishing:  # the watchdog may be closing one of them at this moment
            for adopted in self.adopted:
                adopted.log.close()

    def damage(self) -> Counter[str]:
        """All that was found spoilt in adopted logs since the start: frames, bytes, records."""
        with self._lock:
            found = Counter(self._past)
            for adopted in self._adopted:
                found += adopted.damage()
            return found

    def stats(self) -> list[dict[str, Any]]:
        """The adopted logs, as plain JSON values."""
        return [
            {
                "log_id": adopted.log.log_id,
                "state": "delivering",
                "adopted_at": adopted.adopted_us / 1e6,
                "corrupt_records": adopted.lost_records,
                "keys": len(adopted.keys),
                **(adopted.log.files.stats() if adopted.log.files is not None else {}),
            }
            for adopted in self.adopted
        ]
