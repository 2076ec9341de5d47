"""Tenants as configuration."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from control.config.export import Change, Entry, EntryError, check_fields, take_names
from control.models import Tenant

_FIELDS = {"slug": str, "name": str}


class TenantSection:
    """By slug.  Tenants are never removed: their records and keys refer to them."""

    name = "tenants"
    order = 10

    def export(self) -> list[Entry]:
        return [{"slug": row.slug, "name": row.name} for row in Tenant.objects.order_by("slug")]

    def plan(self, entries: list[Entry], *, prune: bool) -> list[Change]:
        rows = {row.slug: row for row in Tenant.objects.all()}
        changes = []
        for slug, entry in take_names(entries, section=self.name, key="slug").items():
            where = f'tenant "{slug}"'
            check_fields(entry, _FIELDS, where=where)
            row = rows.get(slug)
            now = row.name if row is not None else None
            wanted = entry.get("name", now or "")
            if row is not None and now == wanted:
                continue
            row = row or Tenant(slug=slug)
            row.name = wanted
            try:
                row.full_clean(validate_unique=False)
            except ValidationError as error:
                raise EntryError(f"{where}: {' '.join(error.messages)}") from None
            changes.append(
                Change(
                    section=self.name,
                    name=slug,
                    action="change" if slug in rows else "add",
                    fields={"name": (now, wanted)},
                    apply=row.save,
                )
            )
        return changes
