"""Owns: several ways of one thing, side by side: what a chart is drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way and its repetitions; `group` gathers rows under a heading."""

    label: str
    values: Sequence[float]
    group: str = ""

    @property
    def value(self) -> float:
        return median(self.values)


@dataclass(kw_only=True)
class Panel:
    """Rows of one unit on one scale.  With `log` the scale is logarithmic, and says so."""

    title: str
    unit: str
    less_is_better: bool = False
    log: bool = False
    rows: list[Row] = field(default_factory=list)

    def add(self, label: str, values: Sequence[float], *, group: str = "") -> None:
        self.rows.append(Row(label=label, values=list(values), group=group))

    def groups(self) -> Iterator[tuple[str, list[Row]]]:
        for group in dict.fromkeys(row.group for row in self.rows):
            yield group, [row for row in self.rows if row.group == group]


@dataclass(kw_only=True)
class Comparison:
    """Panels side by side; `name` is that of its file, `setting` what it was measured with."""

    name: str
    title: str
    setting: str
    panels: list[Panel] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "setting": self.setting,
            "panels": [
                {
                    "title": panel.title,
                    "unit": panel.unit,
                    "rows": [
                        {
                            **({"group": row.group} if row.group else {}),
                            "label": row.label,
                            "value": round(row.value, 3),
                            "samples": [round(value, 3) for value in row.values],
                        }
                        for row in panel.rows
                    ],
                }
                for panel in self.panels
            ],
        }
