"""Tenants in the admin. A tenant's slug is on its records, so it never changes."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from control.admin import ModelAdmin, register
from control.models import Tenant


@register(Tenant)
class TenantAdmin(ModelAdmin):
    list_display = ("slug", "name", "created_at")
    search_fields = ("slug", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        return ("slug", "created_at") if obj is not None else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
