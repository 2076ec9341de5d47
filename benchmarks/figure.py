"""Owns: one measured figure: samples of a thing and of its baseline, taken in turns.

The ratio is the median of the repetitions' own ratios: what slows the machine for a while slows
both halves of a repetition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(kw_only=True)
class Figure:
    name: str
    unit: str
    goal: float
    baseline_name: str
    # For most figures more is better; for memory the ratio must stay below the goal.
    at_most: bool = False
    # Reaching this value is as good as reaching the ratio.
    or_value: float | None = None
    values: list[float] = field(default_factory=list)
    baselines: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, value: float, baseline: float) -> None:
        self.values.append(value)
        self.baselines.append(baseline)

    @property
    def ratios(self) -> list[float]:
        return [v / b if b else 0.0 for v, b in zip(self.values, self.baselines, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def passed(self) -> bool:
        if self.at_most:
            return self.ratio <= self.goal
        enough = self.or_value is not None and self.value >= self.or_value
        return self.ratio >= self.goal or enough

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def goal_text(self) -> str:
        text = f"{'<=' if self.at_most else '>='} {self.goal:g}"
        return text if self.or_value is None else f"{text} or {self.or_value:,.0f} {self.unit}"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "value": round(self.value, 1),
            "baseline_name": self.baseline_name,
            "baseline": round(median(self.baselines), 1),
            "ratio": round(self.ratio, 3),
            "ratio_spread": [round(min(self.ratios), 3), round(max(self.ratios), 3)],
            "goal": self.goal_text,
            "passed": self.passed,
            "samples": [round(value, 1) for value in self.values],
            "baseline_samples": [round(value, 1) for value in self.baselines],
            **({"notes": self.notes} if self.notes else {}),
        }
