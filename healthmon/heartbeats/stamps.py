"""Whether a row of any heartbeat target has changed: asked by those who keep a picture of them.

No lock: whoever holds one asks on one thread at a time.
"""

from __future__ import annotations

from datetime import datetime

from django.db.models import Count, Max, Sum

from healthmon.heartbeats.kind import NAME
from healthmon.targets.models import Target

# A change that was stamped before another and committed after it hides behind that one's stamp: so
# often all stamps are compared.
COMPARE_EVERY = 2


class Stamps:
    """`moved` tells of a change until `taken` says that the rows were read."""

    def __init__(self) -> None:
        self._looks = 0
        self._brief: object = None
        self._stamps: dict[int, datetime] | None = None
        self._found: tuple[object, dict[int, datetime]] | None = None

    def moved(self) -> bool:
        """Raises django.db.Error."""
        ours = Target.objects.filter(kind=NAME)
        brief = ours.aggregate(n=Count("pk"), newest=Max("updated_at"), ids=Sum("pk"))
        self._looks += 1
        if brief == self._brief and self._looks % COMPARE_EVERY:
            return False
        stamps = dict(ours.values_list("pk", "updated_at"))
        self._found = (brief, stamps)
        return stamps != self._stamps

    def taken(self) -> None:
        """The rows have been read since `moved` told of a change."""
        if self._found is not None:
            self._brief, self._stamps = self._found
