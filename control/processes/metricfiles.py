"""The metrics of processes that serve no HTTP, shown by those that do.

Such a process writes its registry to `<data_dir>/metrics/processes/<pid>.metrics` every few
seconds, whole and by a rename; a server adds them up for its own /metrics.  Counters and histograms
of ended processes stay counted, or each restart would look like a reset of all: the next process
that starts folds their files into one.  Gauges are those of the living.

`MetricFile` belongs to one thread of its process.  Readers and the folding exclude each other by a
lock on the directory's file `.lock`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

ENDED = "ended.metrics"
MAX_BYTES = 16 * 1024 * 1024
# A process that has not written for so long is held up: its gauges say nothing of now.
STALE_S = 30.0
# What each process tells of itself alone.
_NOT_SHARED = ("python_", "process_", "django_")
_ADDED_UP = frozenset({"counter", "histogram", "summary"})
# Of these gauges the greatest counts, as each process tells of the same thing.
GREATEST = frozenset({"breaker_state", "ledger_imbalance", "ledger_alarm"})

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, array_like=True, gc=False):
    name: str
    text: str
    kind: str
    greatest: bool
    samples: list[tuple[str, Labels, float]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Family])


def directory(data_dir: Path) -> Path:
    return data_dir / "metrics" / "processes"


class MetricFile:
    """This process's file.

    Metrics named in `own` are this kind of process's alone and keep their labels; the others are
    those of every process, and carry `process="<role>"` so that they are told apart.
    """

    def __init__(
        self,
        *,
        folder: Path,
        role: str,
        collect: Callable[[], Iterable[Metric]],
        own: frozenset[str],
        greatest: frozenset[str] = GREATEST,
        pid: int | None = None,
    ) -> None:
        self._folder = folder
        self._role = role
        self._collect = collect
        self._own = own
        self._greatest = greatest
        self._path = folder / f"{pid or os.getpid()}.metrics"

    def open(self) -> None:
        """Make the directory, and fold what ended processes left.  Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self._folder, fcntl.LOCK_EX):
            fold(self._folder, but=self._path)

    def write(self) -> None:
        """Tell of now.  Raises OSError."""
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(_encoder.encode(self._families()))
        fresh.replace(self._path)

    def _families(self) -> list[Family]:
        families = []
        for metric in self._collect():
            if metric.name.startswith(_NOT_SHARED) or not metric.samples:
                continue
            more: Labels = () if metric.name in self._own else (("process", self._role),)
            families.append(
                Family(
                    metric.name,
                    metric.documentation,
                    metric.type,
                    metric.name in self._greatest,
                    [
                        (sample.name, (*sorted(sample.labels.items()), *more), sample.value)
                        for sample in metric.samples
                        if not sample.name.endswith("_created")
                    ],
                )
            )
        return families


def fold(folder: Path, *, but: Path | None = None) -> None:
    """Put the counts of ended processes together in one file; called with the lock held."""
    ended = [path for path in _files(folder) if path == but or not _alive(path)]
    if not ended:
        return
    kept = Added()
    for path in (folder / ENDED, *ended):
        kept.add(_read(path), gauges=False)
    fresh = folder / f"{ENDED}.new"
    fresh.write_bytes(_encoder.encode(kept.families()))
    fresh.replace(folder / ENDED)
    for path in ended:
        path.unlink(missing_ok=True)


class Added:
    """Families of several processes put together."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._values: dict[str, dict[tuple[str, Labels], float]] = {}

    def add(self, families: Iterable[Family], *, gauges: bool) -> None:
        for family in families:
            adds_up = family.kind in _ADDED_UP
            if not adds_up and not gauges:
                continue
            known = self._families.setdefault(family.name, family)
            if known.kind != family.kind:
                continue  # another version's; the newest metric of the name is the one to show
            values = self._values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                before = values.get((name, labels))
                if before is None:
                    values[name, labels] = value
                elif family.greatest and not adds_up:
                    values[name, labels] = max(before, value)
                else:
                    values[name, labels] = before + value

    def families(self) -> list[Family]:
        return [
            Family(
                family.name,
                family.text,
                family.kind,
                family.greatest,
                [(name, labels, value) for (name, labels), value in values.items()],
            )
            for family, values in (
                (family, self._values[name]) for name, family in self._families.items()
            )
        ]


class WithOthers(Collector):
    """A registry's metrics and those that other processes have written, each family once."""

    def __init__(self, *, registry: Collector, folder: Path) -> None:
        self._registry = registry
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        others = {family.name: family for family in read_all(self._folder)}
        for metric in self._registry.collect():
            family = others.pop(metric.name, None)
            yield metric if family is None else _joined(metric, family)
        for family in others.values():
            yield _joined(Metric(family.name, family.text, family.kind), family)


def read_all(folder: Path) -> list[Family]:
    """What all processes have told, put together; nothing where none ever wrote."""
    if not folder.is_dir():
        return []
    added = Added()
    try:
        with _locked(folder, fcntl.LOCK_SH):
            files = _files(folder)
            for path in files:
                added.add(_read(path), gauges=_alive(path) and _is_fresh(path))
            added.add(_read(folder / ENDED), gauges=False)
    except OSError as error:
        logger.warning("metrics of other processes cannot be read", extra={"error": str(error)})
    return added.families()


def _joined(metric: Metric, family: Family) -> Metric:
    joined = Metric(metric.name, metric.documentation, metric.type, metric.unit)
    joined.samples = list(metric.samples)
    values: dict[tuple[str, Labels], int] = {}
    for at, sample in enumerate(joined.samples):
        values[sample.name, tuple(sorted(sample.labels.items()))] = at
    for name, labels, value in family.samples:
        place = values.get((name, tuple(sorted(labels))))
        if place is None:
            joined.add_sample(name, dict(labels), value)
        else:
            sample = joined.samples[place]
            joined.samples[place] = sample._replace(value=sample.value + value)
    return joined


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.metrics") if path.stem.isdigit())


def _read(path: Path) -> list[Family]:
    """What the file says; nothing of one that is gone or damaged."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return []
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        logger.warning(
            "a file of metrics is damaged; its figures are left out",
            extra={"file": str(path), "error": str(error)},
        )
        return []


def _alive(path: Path) -> bool:
    try:
        os.kill(int(path.stem), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_fresh(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < STALE_S
    except OSError:
        return False


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, how)
        yield
