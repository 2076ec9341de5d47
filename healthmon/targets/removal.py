"""Targets as a set of rows, and how they are deleted while their flips are being stored.

Django reads what hangs on a row and then deletes the row: what is stored in between would be left
pointing at nothing, and PostgreSQL refuses the whole deletion at its end.  So the rows are locked
first, in the order in which the `flips` sink takes them: the states, then (as its foreign keys
do) the targets.  Who comes too late finds the target gone.
"""

from __future__ import annotations

from typing import Any

from django.db import models, transaction


class TargetSet(models.QuerySet[Any]):
    def hold(self) -> None:
        """Have nobody store anything of these targets until the caller's transaction ends."""
        asked = list(self.order_by("pk").values_list("pk", flat=True))
        state = self.model._meta.get_field("state").related_model
        for start in range(0, len(asked), 500):
            some = asked[start : start + 500]
            states = state._default_manager.select_for_update().filter(pk__in=some)
            list(states.order_by("pk").values_list("pk", flat=True))
            targets = self.model._default_manager.select_for_update().filter(pk__in=some)
            list(targets.order_by("pk").values_list("pk", flat=True))

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=self.db):
            self.hold()
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]
