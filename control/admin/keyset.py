"""Count-free lists: newest first by key, one page at a time, never COUNT(*) and never OFFSET.

A page is found by the key of its neighbour (`?before=<key>`, `?after=<key>`), so the page 100,000
rows deep costs what the first one costs. Every list query runs under a deadline and a list that is
too slow answers with what to do instead of hanging. Runs in request threads; holds no state.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Field, Model, QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest, QueryDict

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.admin.estimates import estimated_rows
from control.admin.options import ModelAdmin

BEFORE_VAR = "before"
AFTER_VAR = "after"
OLDEST = "oldest"


class FilterForm(forms.Form):
    """The filter bar above a keyset list. A plain GET form: it works without a script.

    Subclasses add fields and narrow the queryset in `apply`. Input is validated; with a bad field
    the list is empty and the error is shown beside the field.
    """

    def apply(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    def advice(self) -> str:
        """What to do when the search took too long."""
        return "Narrow the filters and try again."

    def empty_text(self) -> str:
        """What to say when nothing matches."""
        return "Nothing matches these filters."


class NoCountPaginator(Paginator[Any]):
    """A paginator for Django's code that asks for one: it knows its rows without counting."""

    @property
    def count(self) -> int:
        return len(self.object_list)


class KeysetChangeList(ChangeList):
    """A change list that reads one page by key. See `KeysetModelAdmin`."""

    model_admin: KeysetModelAdmin
    filter_form: FilterForm | None = None
    problem = ""

    @property
    def own_params(self) -> tuple[str, ...]:
        fields = tuple(self.filter_form.fields) if self.filter_form is not None else ()
        return (BEFORE_VAR, AFTER_VAR, *fields)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        lookup_params: dict[str, Any] = super().get_filters_params(params)
        return {k: v for k, v in lookup_params.items() if k not in self.own_params}

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        return [f"-{self.key}"]

    @property
    def key(self) -> str:
        return self.model_admin.keyset_field or self.opts.pk.attname

    def get_queryset(self, request: HttpRequest, *args: Any) -> QuerySet[Any]:
        form = self.filter_form = self.model_admin.get_filter_form(request)
        queryset = super().get_queryset(request, *args)
        if form is not None:
            queryset = form.apply(queryset) if form.is_valid() else queryset.none()
        return queryset

    def _boundary(self, name: str) -> Any:
        text = self.params.get(name)
        if not text:
            return None
        field = self.opts.get_field(self.key)
        assert isinstance(field, Field)
        try:
            return field.to_python(text)
        except (ValidationError, ValueError, OverflowError) as error:
            raise IncorrectLookupParameters(f"{name} is not a key") from error

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        before = self._boundary(BEFORE_VAR)
        oldest = self.params.get(AFTER_VAR) == OLDEST
        after = None if oldest else self._boundary(AFTER_VAR)
        queryset = self.queryset
        if oldest or after is not None:
            queryset = queryset.order_by(self.key)
            if after is not None:
                queryset = queryset.filter(**{f"{self.key}__gt": after})
        elif before is not None:
            queryset = queryset.filter(**{f"{self.key}__lt": before})
        try:
            with query_deadline(queryset.db, self.model_admin.query_deadline_s):
                rows = list(queryset[: size + 1])
                if after is not None and len(rows) <= size:
                    # The top of the list was reached: show it whole, with what has arrived since.
                    after = None
                    rows = list(self.queryset[: size + 1])
        except QueryDeadlineExceeded:
            advice = self.filter_form.advice() if self.filter_form else FilterForm().advice()
            self.problem = (
                f"The search was stopped after {self.model_admin.query_deadline_s:g} s. {advice}"
            )
            rows = []
        more = len(rows) > size
        rows = rows[:size]
        if oldest or after is not None:
            rows.reverse()
            self.newer = more
            self.older = after is not None
        else:
            self.newer = before is not None
            self.older = more
        self._finish(rows)

    def _finish(self, rows: list[Model]) -> None:
        self.result_list = rows
        self.result_count = len(rows)
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = False
        self.multi_page = self.newer or self.older
        self.paginator = NoCountPaginator(rows, max(self.list_per_page, 1))
        self.estimate = estimated_rows(self.model, self.queryset.db)

    def _link(self, **params: str) -> str:
        query = QueryDict(mutable=True)
        for name, values in self.filter_params.items():
            if name not in (BEFORE_VAR, AFTER_VAR):
                query.setlist(name, values)
        for name, value in params.items():
            query[name] = value
        return f"?{query.urlencode()}"

    def _key_of(self, row: Model) -> str:
        return str(getattr(row, self.key))

    @property
    def newest_link(self) -> str:
        return self._link()

    @property
    def newer_link(self) -> str:
        if not self.newer:
            return ""
        if not self.result_list:
            return self._link()
        return self._link(**{AFTER_VAR: self._key_of(self.result_list[0])})

    @property
    def older_link(self) -> str:
        if not self.older:
            return ""
        if not self.result_list:
            return self._link()
        return self._link(**{BEFORE_VAR: self._key_of(self.result_list[-1])})

    @property
    def oldest_link(self) -> str:
        return self._link(**{AFTER_VAR: OLDEST})


class KeysetModelAdmin(ModelAdmin):
    """An admin for a table that grows without bound.

    `keyset_field` is a unique, ordered, indexed column (the primary key when empty); rows come
    newest first by it. `filter_form_class` is the filter bar. Actions apply to the page's rows.
    """

    keyset_field: ClassVar[str] = ""
    filter_form_class: ClassVar[type[FilterForm] | None] = None
    query_deadline_s: ClassVar[float] = 5.0

    list_per_page = 100
    show_full_result_count = False
    sortable_by = ()
    change_list_template = "admin/keyset_change_list.html"
    paginator = NoCountPaginator

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        # Django lets staff filter by any column through the address; on a table without bound
        # that is a scan, so only what a filter offers is answered.
        if request is None or not self.get_list_filter(request):
            return False
        return bool(super().lookup_allowed(lookup, value, request))

    def get_filter_form(self, request: HttpRequest) -> FilterForm | None:
        if self.filter_form_class is None:
            return None
        return self.filter_form_class(request.GET)
