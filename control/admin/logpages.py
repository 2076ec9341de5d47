"""The admin's page of logs: each process's own, those adopted, those nobody owns, the quarantine.

Whoever may see processes sees the page; quarantined bytes, which may hold anybody's records, are
for superusers alone, and each look at them and each deletion is written down. Runs in request
threads.
"""

from __future__ import annotations

import logging

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from control.admin import logdirs, quarantine
from control.admin.overview import overview_for

logger = logging.getLogger(__name__)


@never_cache
@require_safe
def log(request: HttpRequest) -> HttpResponse:
    """What is logged, what is left of it, and what was damaged."""
    if not request.user.has_perm("control.view_process"):
        raise PermissionDenied
    overview = overview_for(request)
    context = {
        **admin.site.each_context(request),
        "title": "Log",
        "now": overview.now,
        "logs": overview.logs,
        "adopted": [(log, one) for log in overview.logs for one in log.adopted],
        "directories": logdirs.on_disk(overview),
        "directory": logdirs.directory(),
        "quarantined": quarantine.listing(),
        "quarantine": quarantine.place(),
        "may_open": request.user.is_active and request.user.is_superuser,
    }
    return TemplateResponse(request, "admin/control/log.html", context)


@never_cache
@require_safe
def quarantined(request: HttpRequest, name: str) -> HttpResponseBase:
    """A quarantined file as it is, for superusers."""
    one = _for_superuser(request, name)
    try:
        file = one.path.open("rb")
    except OSError as error:
        raise Http404("It has been deleted.") from error
    _write_down(request, one, CHANGE, "Downloaded from the quarantine")
    return FileResponse(
        file, as_attachment=True, filename=one.name, content_type="application/octet-stream"
    )


@never_cache
@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    """Ask, then delete a quarantined file for good."""
    one = _for_superuser(request, name)
    if request.method == "GET":
        context = {**admin.site.each_context(request), "title": "Delete from the quarantine"}
        return TemplateResponse(
            request, "admin/control/quarantine_delete.html", {**context, "file": one}
        )
    # Written down first: a deletion that nobody knows of must not be possible.
    _write_down(request, one, DELETION, f"Deleted from the quarantine: {one.nbytes} bytes")
    try:
        one.path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        messages.error(request, f"Could not delete {one.name}: {error.strerror}")
        return redirect("admin:log")
    messages.success(request, f"Deleted {one.name}.")
    return redirect("admin:log")


def _for_superuser(request: HttpRequest, name: str) -> quarantine.Quarantined:
    if not request.user.is_superuser:
        raise PermissionDenied
    one = quarantine.find(name)
    if one is None:
        raise Http404("There is no such file in the quarantine.")
    return one


def _write_down(
    request: HttpRequest, one: quarantine.Quarantined, action: int, message: str
) -> None:
    user = request.user
    assert user.pk is not None, "superusers have logged in"
    LogEntry.objects.create(
        user_id=user.pk,
        object_id=one.name[:200],
        object_repr=one.name[:200],
        action_flag=action,
        change_message=message,
    )
    logger.warning(
        message,
        extra={"file": one.name, "user": user.get_username(), "bytes": one.nbytes},
    )
