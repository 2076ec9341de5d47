"""What every view of targets, results and incidents has besides `control.web.api`."""

from __future__ import annotations

from typing import ClassVar

from control.web import api

MAX_ID = 2**63 - 1


class ApiView(api.ApiView):
    """`read` to look, `targets` to change."""

    write_scope: ClassVar[str] = "targets"
    narrow_by: ClassVar[str] = "a target"
