"""Asking before something is done to many jobs, and offering it over the list.

Runs in request threads; what is asked for is carried out in the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.admin.inert import inert
from jobs.admin.filters import JobFilter
from jobs.bulk import tasks
from jobs.bulk.models import ACTIONS, CANCEL, DISCARD, REPRIORITISE, RETRY
from jobs.bulk.selection import APPLIES, Selection, of_ids
from jobs.ids import first_id_at
from jobs.states import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY, SCHEDULED

MAX_IDS = 1_000
COUNTED_AT_MOST, COUNTING_S = 10_000, 2.0
PRIORITIES = range(HIGHEST_PRIORITY, LOWEST_PRIORITY - 1, -1)
TITLES = {
    RETRY: "Retry jobs",
    CANCEL: "Cancel jobs",
    REPRIORITISE: "Change the priority of jobs",
    DISCARD: "Discard dead jobs",
}
_EFFECTS = {
    RETRY: "Dead and cancelled jobs are queued again with all their attempts; steps that "
    "succeeded are kept. Those that wait for their next attempt run at once; those planned for "
    "later do where they were chosen, or the list shows scheduled ones.",
    CANCEL: "Those that wait are cancelled at once, those that run as soon as their runner hears "
    "of it.",
    REPRIORITISE: "Of those that wait, the higher numbers are taken first.",
    DISCARD: "Dead jobs are given up: they stay to be read until their days are over.",
}
_VERBS = {
    RETRY: "Retry", CANCEL: "Cancel", REPRIORITISE: "Change the priority", DISCARD: "Discard",
}  # fmt: skip


def offers(query: QueryDict) -> list[tuple[str, str]]:
    """The actions that do something to what the filter matches: (label, address)."""
    form = JobFilter(query)
    if not form.is_valid():
        return []
    selection = form.selection()
    return [
        (
            "Run now" if name == RETRY and selection.state == SCHEDULED else _VERBS[name],
            reverse("admin:jobs_job_bulk", args=[name]) + f"?{query.urlencode()}",
        )
        for name in ACTIONS
        if selection.states_for(name)
    ]


def args_of(name: str, data: QueryDict) -> dict[str, Any]:
    """What goes with an action.  Raises ValueError, its text for people."""
    if name != REPRIORITISE:
        return {}
    text = data.get("priority", "")
    args = {"priority": int(text) if text.isdecimal() and len(text) < 4 else None}
    if problem := tasks.problem_of(name, args):
        raise ValueError(problem)
    return args


def page(model_admin: Any, request: HttpRequest, name: str) -> HttpResponse:
    """Ask (GET, with the filter in the address), then have it done (POST)."""
    if not model_admin.has_change_permission(request):
        raise PermissionDenied
    return ask(model_admin, request, name, ids=request.POST.getlist("ids"))


def ask(model_admin: Any, request: HttpRequest, name: str, *, ids: Sequence[str]) -> HttpResponse:
    selection = _selection(request, ids)
    if selection is None:
        return _back(request, "These jobs cannot be told from the address; choose them anew.")
    if request.method == "POST" and "confirmed" in request.POST:
        try:
            args = args_of(name, request.POST)
            user: Any = request.user
            begun = tasks.begin(name, selection, asked_by=user, now=timezone.now(), args=args)
        except ValueError as error:
            messages.error(request, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:jobs_bulkaction_change", args=[begun.pk]))
    count, more = _counted(name, selection)
    if count == 0:
        return _back(
            request,
            f"“{TITLES[name]}” does nothing to {selection.words()}: it takes those that are "
            f"{', '.join(APPLIES[name])}.",
            selection,
        )
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": TITLES[name],
        "name": name,
        "verb": _VERBS[name],
        "count": count,
        "more": more,
        "words": inert(selection.words(), limit=500),
        "effect": _EFFECTS[name],
        "ids": [str(one) for one in selection.ids],
        "action_url": reverse("admin:jobs_job_bulk", args=[name])
        + ("" if selection.ids else f"?{request.GET.urlencode()}"),
        "list_url": reverse("admin:jobs_job_changelist", query=selection.query() or None),
        "priorities": PRIORITIES if name == REPRIORITISE else (),
        "priority": DEFAULT_PRIORITY,
    }
    return TemplateResponse(request, "admin/jobs/job/bulk.html", context)


def _selection(request: HttpRequest, ids: Sequence[str]) -> Selection | None:
    if ids:
        return of_ids(ids, at_most=MAX_IDS)
    form = JobFilter(request.GET)
    return form.selection() if form.is_valid() else None


def _counted(name: str, selection: Selection) -> tuple[int | None, bool]:
    """How many, and whether there are more than were counted; None when that took too long."""
    until = None if selection.ids else first_id_at(timezone.now())
    try:
        with query_deadline("default", COUNTING_S):
            count = selection.count(name, until=until, limit=COUNTED_AT_MOST + 1)
    except QueryDeadlineExceeded:
        return None, True
    return min(count, COUNTED_AT_MOST), count > COUNTED_AT_MOST


def _back(request: HttpRequest, said: str, selection: Selection | None = None) -> HttpResponse:
    """To the list, as it was filtered."""
    messages.error(request, said)
    form = JobFilter(request.GET)
    if (selection is None or selection.ids) and form.is_valid():
        selection = form.selection()
    query = selection.query() if selection is not None and not selection.ids else {}
    return HttpResponseRedirect(reverse("admin:jobs_job_changelist", query=query or None))
