"""A target as answers of the API show it, without secrets.

Many are read as plain rows, as making a model of each and of what it refers to takes most of the
time; what they refer to by one query each.  Runs on request threads; keeps nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import Http404

from healthmon.probes.registry import KindError, kind_of
from healthmon.targets.models import Target
from healthmon.truth.machine import NEW
from sinks.options import secret_names
from sinks.secrets import is_reference

PLAIN = (
    "name", "kind", "address", "interval_s", "timeout_s", "retry_interval_s", "failure_threshold",
    "success_threshold", "degraded_after_ms", "paused", "severity", "notes", "service",
    "slo_percent", "slo_days", "public", "badge",
)  # fmt: skip
_OWNER = f"owner__{get_user_model().USERNAME_FIELD}"
_COLUMNS = (
    "id", *PLAIN, "options", "secrets", "group__name", _OWNER, "state__status", "state__since",
    "state__reason", "state__flapping", "state__cert_expires_at", "created_at", "updated_at",
)  # fmt: skip


def as_rows(targets: QuerySet[Target]) -> QuerySet[Any]:
    """What `documents` needs of each."""
    rows: QuerySet[Any] = targets.values(*_COLUMNS)
    return rows


def documents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents of the rows, in three queries at most."""
    ids = [row["id"] for row in rows]
    tags, parents = defaultdict[int, list[str]](list), defaultdict[int, list[int]](list)
    if ids:
        links = Target.tags.through.objects.filter(target__in=ids)
        for pk, name in links.values_list("target_id", "tag__name"):
            tags[pk].append(name)
        lineage = Target.parents.through.objects.filter(from_target__in=ids)
        for pk, parent in lineage.values_list("from_target_id", "to_target_id"):
            parents[pk].append(parent)
    return [_document(row, sorted(tags[row["id"]]), sorted(parents[row["id"]])) for row in rows]


def document(pk: int) -> dict[str, Any]:
    """The document of one.  Raises Http404."""
    found = documents(list(as_rows(Target.objects.filter(pk=pk))))
    if not found:
        raise Http404
    return found[0]


def _document(row: dict[str, Any], tags: list[str], parents: list[int]) -> dict[str, Any]:
    return {
        "id": row["id"],
        **{name: row[name] for name in PLAIN},
        "options": _public_options(row["kind"], row["options"]),
        "secrets": sorted(row["secrets"]),
        "tags": tags,
        "group": row["group__name"],
        "owner": row[_OWNER],
        "parents": parents,
        "state": {
            "status": row["state__status"] or NEW,
            "since": row["state__since"],
            "reason": row["state__reason"] or "",
            "flapping": bool(row["state__flapping"]),
            "cert_expires_at": row["state__cert_expires_at"],
        },
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _public_options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        secret = secret_names(kind_of(kind).Options)
    except KindError:
        secret = frozenset(options)
    return {
        name: value
        for name, value in options.items()
        if name not in secret or (isinstance(value, str) and is_reference(value))
    }
