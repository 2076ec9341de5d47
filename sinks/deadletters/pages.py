"""Pages about many letters: groups of like errors, and the questions before a decision.

Runs in request threads.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max, Min
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.admin.inert import inert, one_line
from control.processes.asking import has_pipelines, living
from sinks.deadletters import decisions, tally
from sinks.deadletters.forms import DiscardForm, selection_of
from sinks.deadletters.models import WAITING, DeadLetter, DeadLetterTally
from sinks.deadletters.selection import Selection

MAX_GROUPS = 100
GROUPING_S = 5.0
CHECKED_LETTERS = 50_000
# What one request discards at most; the page says when there is more.
DISCARDED_AT_ONCE = 50_000


def groups(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Waiting letters by sink, reason and pattern of the error, with each sink's tally."""
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    sink = request.GET.get("sink", "")
    tallies = list(DeadLetterTally.objects.filter(**({"pk": sink} if sink else {})))
    names = {row.sink: row.sink_name for row in tallies}
    problem = ""
    try:
        with query_deadline("default", GROUPING_S):
            found = _found_groups(sink, names)
    except QueryDeadlineExceeded:
        found, problem = [], f"Grouping was stopped after {GROUPING_S:g} s. Choose a sink."
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": "Dead letters by reason",
        "groups": found,
        "more": len(found) >= MAX_GROUPS,
        "problem": problem,
        "tallies": [(row, _verdict(row)) for row in tallies],
        "chosen": names.get(sink, "") if sink else "",
        "may_decide": model_admin.has_change_permission(request),
    }
    return TemplateResponse(request, "admin/sinks/deadletter/groups.html", context)


def _found_groups(sink: str, names: dict[str, str]) -> list[dict[str, Any]]:
    letters = DeadLetter.objects.filter(state=WAITING).order_by()
    if sink:
        letters = letters.filter(sink=sink)
    grouped = letters.values("sink", "reason", "pattern").annotate(
        count=Count("pk"), first=Min("entered_at"), last=Max("entered_at"), example=Max("pk")
    )
    rows = list(grouped.order_by("-count", "sink", "reason", "pattern")[:MAX_GROUPS])
    examples = DeadLetter.objects.only("error").in_bulk([row["example"] for row in rows])
    found = []
    for row in rows:
        query = {"sink": row["sink"], "reason": row["reason"], "pattern": row["pattern"]}
        example = examples.get(row["example"])
        found.append(
            {
                **row,
                "name": names.get(row["sink"], row["sink"]),
                "pattern": inert(row["pattern"]) or "(no error)",
                "error": one_line(example.error, limit=300) if example is not None else "",
                "query": urlencode(query, errors="replace"),
            }
        )
    return found


def _verdict(row: DeadLetterTally) -> str:
    """What is wrong with a tally; "" when it adds up."""
    if row.imbalance:
        return f"differs by {row.imbalance:,}"
    if row.entered > CHECKED_LETTERS:
        return ""
    off = tally.differences(row.sink)
    return ", ".join(f"{state} differs from the rows by {by:,}" for state, by in off.items())


def redrive(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Ask before letters are sent again; then make the task."""
    selection = _selection(model_admin, request)
    if selection is None:
        return _back(request, "These letters cannot be told from the address; choose them anew.")
    if request.method == "POST":
        try:
            made = decisions.redrive(selection, who=request.user.get_username())
        except decisions.Refused as refused:
            return _back(request, str(refused))
        messages.success(
            request,
            "The letters are sent again."
            if any(has_pipelines(process) for process in living())
            else "No process with pipelines is running: the letters are sent when one does.",
        )
        if len(made) == 1:
            return HttpResponseRedirect(
                reverse("admin:sinks_redrivetask_change", args=[made[0].pk])
            )
        return HttpResponseRedirect(reverse("admin:sinks_redrivetask_changelist"))
    return _ask(model_admin, request, "redrive", selection, {"title": "Redrive dead letters"})


def discard(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Ask for a reason, then give the letters up."""
    selection = _selection(model_admin, request)
    if selection is None:
        return _back(request, "These letters cannot be told from the address; choose them anew.")
    form = DiscardForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        who, reason = request.user.get_username(), form.cleaned_data["reason"]
        try:
            done = decisions.discard(selection, who=who, reason=reason, at_most=DISCARDED_AT_ONCE)
        except decisions.Refused as refused:
            return _back(request, str(refused))
        messages.warning(request, f"{done:,} letter{'' if done == 1 else 's'} discarded.")
        if done == DISCARDED_AT_ONCE and selection.waiting().exists():
            messages.warning(request, "More of them wait: discard again to go on.")
            return HttpResponseRedirect(request.get_full_path())
        return HttpResponseRedirect(reverse("admin:sinks_deadletter_changelist"))
    context = {"title": "Discard dead letters", "form": form}
    return _ask(model_admin, request, "discard", selection, context)


def _selection(model_admin: Any, request: HttpRequest) -> Selection | None:
    if not model_admin.has_change_permission(request):
        raise PermissionDenied
    return selection_of(request.GET)


def _ask(
    model_admin: Any, request: HttpRequest, name: str, selection: Selection, context: dict[str, Any]
) -> HttpResponse:
    count = decisions.count(selection)
    if count == 0:
        return _back(request, "None of these letters waits any more.")
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "count": count,
        "words": inert(selection.words(), limit=500),
        "sinks": sorted(decisions.sinks_of(selection).values()),
        **context,
    }
    return TemplateResponse(request, f"admin/sinks/deadletter/{name}.html", context)


def _back(request: HttpRequest, said: str) -> HttpResponse:
    messages.error(request, said)
    return HttpResponseRedirect(reverse("admin:sinks_deadletter_changelist"))
