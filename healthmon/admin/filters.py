"""How the list of targets is narrowed: by choices that stand in one bar above it.

They are Django's own list filters, so that "select all across pages" and the pages' links know
them; only how they are drawn is ours.  Runs in request threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest

from healthmon.admin import statuses
from healthmon.probes.registry import kind_names
from healthmon.targets.models import SEVERITIES, Tag, TargetGroup

NONE = "-"
MAX_CHOICES = 500


class ChoiceFilter(SimpleListFilter, ABC):
    """One choice of a few; an unknown one finds nothing."""

    template = "admin/healthmon/filter_choice.html"

    def has_output(self) -> bool:
        return True

    def chosen(self) -> str:
        return self.value() or ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        value = self.chosen()
        if not value:
            return queryset
        if value not in {str(choice) for choice, _ in self.lookup_choices}:
            return queryset.none()
        return self.narrowed(queryset, value)

    @abstractmethod
    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Those of `queryset` that the choice `value`, one of those offered, leaves."""


class StatusFilter(ChoiceFilter):
    title, parameter_name = "Status", "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("problems", "down, degraded, unknown"), *((one, one) for one in statuses.ORDER)]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        watching = statuses.watch()
        if value != "problems":
            return queryset.filter(statuses.having(value, watching))
        bad = statuses.having("down", watching) | statuses.having("degraded", watching)
        return queryset.filter(bad | statuses.having("unknown", watching))


class KindFilter(ChoiceFilter):
    title, parameter_name = "Kind", "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(name, kind.label) for name, kind in kind_names()]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(kind=value)


class TagFilter(ChoiceFilter):
    title, parameter_name = "Tag", "tag"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        names = Tag.objects.values_list("name", flat=True)[:MAX_CHOICES]
        return [(name, name) for name in names]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(tags__name=value)


class GroupFilter(ChoiceFilter):
    title, parameter_name = "Group", "group"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        rows = TargetGroup.objects.values_list("pk", "name")[:MAX_CHOICES]
        return [*((str(pk), name) for pk, name in rows), (NONE, "none")]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if value == NONE:
            return queryset.filter(group__isnull=True)
        return queryset.filter(group_id=int(value))


class OwnerFilter(ChoiceFilter):
    title, parameter_name = "Owner", "owner"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        users: Any = get_user_model()
        rows = users.objects.filter(is_active=True).order_by(users.USERNAME_FIELD)
        names = rows.values_list("pk", users.USERNAME_FIELD)[:MAX_CHOICES]
        return [*((str(pk), name) for pk, name in names), (NONE, "none")]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if value == NONE:
            return queryset.filter(owner__isnull=True)
        return queryset.filter(owner_id=value)


class SeverityFilter(ChoiceFilter):
    title, parameter_name = "Severity", "severity"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return SEVERITIES

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(severity=value)


class PausedFilter(ChoiceFilter):
    title, parameter_name = "Paused", "paused"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("yes", "paused"), ("no", "not paused")]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(paused=value == "yes")


FILTERS = (
    StatusFilter,
    KindFilter,
    TagFilter,
    GroupFilter,
    OwnerFilter,
    SeverityFilter,
    PausedFilter,
)
