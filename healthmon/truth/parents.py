"""Which parent is to blame: the ancestors of targets, and those of them that are down.

Reads the control database, a query a generation.  Targets that are each other's ancestors blame
nobody within their circle, or none of them would ever alert.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from healthmon.targets.models import Target
from healthmon.truth.machine import DOWN
from healthmon.truth.models import TargetState

MAX_GENERATIONS = 32
_CHUNK = 500


def ancestors(target_ids: Iterable[int]) -> dict[int, list[int]]:
    """All ancestors of each target, the nearest first; those in a circle with it left out."""
    wanted = set(target_ids)
    edges = _edges(wanted)
    above = {target_id: _above(target_id, edges) for target_id in _reached(wanted, edges)}
    return {
        target_id: [
            ancestor for ancestor in above[target_id] if target_id not in above.get(ancestor, ())
        ]
        for target_id in wanted
    }


def down_parents(
    target_ids: Iterable[int], *, statuses: Mapping[int, str] | None = None
) -> dict[int, int]:
    """For each target that has an ancestor which is down, the nearest such.

    `statuses` are those that the caller knows better than the database does.
    """
    above = ancestors(target_ids)
    known = dict(statuses or {})
    asked = {ancestor for found in above.values() for ancestor in found} - known.keys()
    for chunk in _chunks(asked):
        states = TargetState.objects.filter(target__in=chunk, status=DOWN)
        known.update(dict.fromkeys(states.values_list("target_id", flat=True), DOWN))
    blamed = {}
    for target_id, found in above.items():
        down = next((ancestor for ancestor in found if known.get(ancestor) == DOWN), None)
        if down is not None:
            blamed[target_id] = down
    return blamed


def _edges(target_ids: set[int]) -> dict[int, list[int]]:
    """Each child's parents, for these targets and all above them."""
    through = Target.parents.through.objects
    edges: dict[int, list[int]] = {}
    wave, seen = set(target_ids), set(target_ids)
    for _ in range(MAX_GENERATIONS):
        following: set[int] = set()
        for chunk in _chunks(wave):
            rows = through.filter(from_target__in=chunk).order_by("id")
            for child, parent in rows.values_list("from_target_id", "to_target_id"):
                edges.setdefault(child, []).append(parent)
                following.add(parent)
        wave = following - seen
        seen |= wave
        if not wave:
            break
    return edges


def _reached(target_ids: set[int], edges: Mapping[int, list[int]]) -> set[int]:
    return target_ids | {parent for parents in edges.values() for parent in parents}


def _above(target_id: int, edges: Mapping[int, list[int]]) -> dict[int, None]:
    """The ancestors in the order of their distance; the target itself when it is in a circle."""
    found: dict[int, None] = {}
    queue = deque(edges.get(target_id, ()))
    while queue:
        ancestor = queue.popleft()
        if ancestor not in found:
            found[ancestor] = None
            queue.extend(edges.get(ancestor, ()))
    return found


def _chunks(ids: Iterable[int]) -> Iterable[list[int]]:
    ordered = sorted(ids)
    return (ordered[i : i + _CHUNK] for i in range(0, len(ordered), _CHUNK))
