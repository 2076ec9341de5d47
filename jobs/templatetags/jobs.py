"""`{% load jobs %}`: the jobs page and marks in templates.  Thin: the work is in jobs.admin."""

from __future__ import annotations

from typing import Any

from django import template

from control.admin.inert import inert as made_inert
from jobs.admin import marks

register = template.Library()

register.filter("state_mark", marks.state_mark)
register.filter("breaker_mark", marks.breaker_mark)


@register.filter
def inert(text: Any) -> str:
    return made_inert("" if text is None else str(text), limit=5_000)


@register.simple_tag(takes_context=True)
def jobs_board(context: Any) -> dict[str, Any]:
    """What the jobs page shows."""
    from jobs.admin.board import board_context

    return board_context(context["request"])
