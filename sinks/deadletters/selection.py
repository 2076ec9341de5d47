"""Which letters are meant: by their numbers, or by what they have in common.

A selection is kept with a task and with what is noted of a decision, so it is plain JSON there.
Pure functions over querysets.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from sinks.deadletters.models import WAITING, DeadLetter

MAX_IDS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Every field that is set must fit; `ids` are the letters' own.  States are no part of it:
    a decision is always about letters that wait."""

    sink: str = ""
    tenant: str = ""
    reason: str = ""
    type: str = ""
    # None: whatever the error; "" is the pattern of a letter without one.
    pattern: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str = ""
    ids: tuple[int, ...] | None = None

    def apply(self, letters: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """The letters that are meant, whatever their state."""
        for name in ("sink", "tenant", "reason", "type"):
            if getattr(self, name):
                letters = letters.filter(**{name: getattr(self, name)})
        if self.pattern is not None:
            letters = letters.filter(pattern=self.pattern)
        if self.since is not None:
            letters = letters.filter(entered_at__gte=self.since)
        if self.until is not None:
            letters = letters.filter(entered_at__lt=self.until)
        for word in self.q.split()[:12]:
            inside = Q(error__icontains=word) | Q(message__icontains=word)
            inside |= Q(service__icontains=word)
            if word.isdigit() and len(word) < 19:
                inside |= Q(record_id=int(word))
            letters = letters.filter(inside)
        if self.ids is not None:
            letters = letters.filter(pk__in=self.ids)
        return letters

    def waiting(self) -> QuerySet[DeadLetter]:
        """Those that wait, in the order in which they came."""
        return self.apply(DeadLetter.objects.filter(state=WAITING)).order_by("pk")

    def to_json(self) -> dict[str, Any]:
        """Only what is set."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value in (None, "") and not (field.name == "pattern" and value == ""):
                continue
            found[field.name] = value.isoformat() if isinstance(value, datetime) else value
        if self.ids is not None:
            found["ids"] = list(self.ids)
        return found

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Selection:
        values = dict(data)
        for name in ("since", "until"):
            if values.get(name):
                values[name] = datetime.fromisoformat(values[name])
        if values.get("ids") is not None:
            values["ids"] = tuple(int(one) for one in values["ids"])
        return cls(**values)

    def words(self) -> str:
        """The selection for people, in one line."""
        said = [
            f"{name} {getattr(self, name)}"
            for name in ("tenant", "reason", "type")
            if getattr(self, name)
        ]
        if self.pattern is not None:
            said.append(f"error like “{self.pattern}”")
        if self.since is not None:
            said.append(f"since {self.since:%Y-%m-%d %H:%M:%S}")
        if self.until is not None:
            said.append(f"before {self.until:%Y-%m-%d %H:%M:%S}")
        if self.q:
            said.append(f"with “{self.q}”")
        if self.ids is not None:
            shown = ", ".join(map(str, self.ids[:10]))
            more = f" and {len(self.ids) - 10} more" if len(self.ids) > 10 else ""
            said.append(f"letter{'s' if len(self.ids) != 1 else ''} {shown}{more}")
        return ", ".join(said) or "all that wait"
