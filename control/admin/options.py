"""Base classes for the admin of every app: quiet defaults, and read-only admins.

Runs in request threads; holds no state of its own.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.text import capfirst

from control.admin.widgets import MomentInput


class ModelAdmin(admin.ModelAdmin[Any]):
    """Collector's admin for a configuration table: small enough to count, edited by people."""

    list_per_page = 50
    list_max_show_all = 500
    show_facets = admin.ShowFacets.NEVER  # a COUNT for each choice of each filter
    save_on_top = False
    # Django's pair of fields has no labels for those who do not see it.
    formfield_overrides = {
        models.DateTimeField: {"form_class": forms.DateTimeField, "widget": MomentInput}
    }
    empty_value_display = "\N{EN DASH}"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        # "Select sink to change" tells less than "Sinks".
        title = capfirst(str(self.opts.verbose_name_plural))
        return super().changelist_view(request, {"title": title, **(extra_context or {})})


class ReadOnlyMixin:
    """Nothing can be added, changed or deleted; whoever may see the model may look at it.

    Subclasses that delete (retention by hand) override `has_delete_permission`.
    """

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyModelAdmin(ReadOnlyMixin, ModelAdmin):
    """A table that the product writes and people only read."""

    actions = None
