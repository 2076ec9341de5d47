"""Keeps the checker's picture of the targets like the rows: what was added, changed, removed.

`poll` runs on the loader's thread, every POLL_S: three small queries while nothing changes, at
times all rows' stamps, and the rows that moved when something did.  What it finds is handed over
whole; nothing here is read by another thread.  While the database is away the picture stays as it
is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from django.db.models import Count, F, Max, Sum

from healthmon.targets.models import MaintenanceWindow, Target, slot_of
from healthmon.targets.spec import TargetSpec, spec_of
from healthmon.truth.machine import NEW, UNKNOWN
from healthmon.truth.maintenance import Window
from healthmon.truth.models import Flip, TargetState

POLL_S = 2.0
# A change that was stamped before another and committed after it hides behind that one's stamp: so
# often all stamps are compared.
COMPARE_EVERY = 2
CHUNK = 500


@dataclass(frozen=True, slots=True)
class StoredState:
    """A target's state as the database has it."""

    status: str
    seq: int
    since_us: int
    flapping: bool = False
    before: str = NEW  # what one that is unknown was


@dataclass(slots=True)
class News:
    """What changed since the last poll."""

    specs: list[TargetSpec] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    states: dict[int, StoredState] = field(default_factory=dict)
    windows: list[WindowScope] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowScope:
    """A maintenance window and whom it covers."""

    window: Window
    title: str
    all_targets: bool
    targets: frozenset[int]
    tags: frozenset[int]
    groups: frozenset[int]

    def covers(self, spec: TargetSpec) -> bool:
        return (
            self.all_targets
            or spec.id in self.targets
            or spec.group in self.groups
            or not self.tags.isdisjoint(spec.tags)
        )


class Loader:
    """Follows the targets of the slots it is told of."""

    def __init__(self) -> None:
        self._epochs: dict[int, int] = {}
        self._known: dict[int, datetime] = {}
        self._fingerprint: object = None
        self._states: object = None
        self._polls = 0
        self._seqs: dict[int, int] = {}
        self._windows: object = None
        # What was found by a poll that failed half way.
        self._news = News()

    def follow(self, epochs: dict[int, int]) -> set[int]:
        """These slots are held, under these epochs; returns the targets that are not ours now.

        A slot of another epoch was somebody else's meanwhile: its targets go, and come anew.
        """
        if epochs == self._epochs:
            return set()
        gone = {slot for slot, epoch in self._epochs.items() if epochs.get(slot) != epoch}
        removed = {one for one in self._known if slot_of(one) in gone}
        for target_id in removed:
            del self._known[target_id]
            self._seqs.pop(target_id, None)
        self._news.specs = [spec for spec in self._news.specs if spec.id not in removed]
        self._epochs, self._fingerprint, self._states = dict(epochs), None, None
        return removed

    def poll(self) -> News:
        """Raises django.db.Error; the next poll then tells everything that this one missed."""
        self._poll_targets(self._news)
        self._poll_states(self._news)
        self._poll_windows(self._news)
        news, self._news = self._news, News()
        return news

    def _poll_targets(self, news: News) -> None:
        seen = Target.objects.aggregate(n=Count("pk"), newest=Max("updated_at"), ids=Sum("pk"))
        self._polls += 1
        if seen == self._fingerprint and self._polls % COMPARE_EVERY:
            return
        rows = dict(Target.objects.values_list("pk", "updated_at"))
        ours = {pk for pk in rows if slot_of(pk) in self._epochs}
        for target_id in self._known.keys() - ours:
            del self._known[target_id]
            self._seqs.pop(target_id, None)
            news.removed.add(target_id)
        moved = sorted(pk for pk in ours if self._known.get(pk) != rows[pk])
        for start in range(0, len(moved), CHUNK):
            chunk = moved[start : start + CHUNK]
            tags: dict[int, set[int]] = {}
            through = Target.tags.through.objects.filter(target_id__in=chunk)
            for target_id, tag_id in through.values_list("target_id", "tag_id"):
                tags.setdefault(target_id, set()).add(tag_id)
            for target in Target.objects.filter(pk__in=chunk):
                spec = spec_of(target, tags=frozenset(tags.get(target.pk, ())))
                news.specs.append(spec)
                self._known[target.pk] = target.updated_at
        self._fingerprint = seen

    def _poll_states(self, news: News) -> None:
        seen = TargetState.objects.aggregate(n=Count("pk"), seqs=Sum("seq"))
        if seen == self._states and not news.specs:
            return
        fields = ("target_id", "status", "seq", "since", "flapping")
        unknown = []
        for target_id, status, seq, since, flapping in TargetState.objects.values_list(*fields):
            if target_id not in self._known or self._seqs.get(target_id) == seq:
                continue
            since_us = round(since.timestamp() * 1e6) if since is not None else 0
            news.states[target_id] = StoredState(status, seq, since_us, flapping)
            self._seqs[target_id] = seq
            if status == UNKNOWN:
                unknown.append(target_id)
        for start in range(0, len(unknown), CHUNK):
            flips = Flip.objects.filter(
                target_id__in=unknown[start : start + CHUNK], seq=F("target__state__seq")
            )
            for target_id, before in flips.values_list("target_id", "from_status"):
                state = news.states[target_id]
                news.states[target_id] = replace(state, before=before)
        self._states = seen

    def _poll_windows(self, news: News) -> None:
        seen = list(MaintenanceWindow.objects.filter(active=True).values_list("pk", "updated_at"))
        if seen == self._windows:
            return
        chosen = MaintenanceWindow.objects.filter(active=True).prefetch_related(
            "targets", "tags", "groups"
        )
        news.windows = [scope_of(window) for window in chosen]
        self._windows = seen


def scope_of(row: MaintenanceWindow) -> WindowScope:
    return WindowScope(
        window=Window.of(row),
        title=row.title,
        all_targets=row.all_targets,
        targets=frozenset(one.pk for one in row.targets.all()),
        tags=frozenset(one.pk for one in row.tags.all()),
        groups=frozenset(one.pk for one in row.groups.all()),
    )
