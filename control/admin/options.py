"""Base classes for the admin of every app: quiet defaults, and read-only admins.

Runs in request threads; holds no state of its own.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from control.admin.widgets import MomentInput


class ModelAdmin(admin.ModelAdmin[Any]):
    """Collector's admin for a configuration table: small enough to count, edited by people."""

    list_per_page = 50
    list_max_show_all = 500
    show_full_result_count = False
    save_on_top = False
    # Django's pair of fields has no labels for those who do not see it.
    formfield_overrides = {
        models.DateTimeField: {"form_class": forms.DateTimeField, "widget": MomentInput}
    }
    empty_value_display = "\N{EN DASH}"


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
