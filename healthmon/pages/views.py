"""`/status/<slug>` as a page, JSON and RSS, and `/badge/<slug>.svg`: for anyone, without a session.

What is not published answers as what does not exist.  Runs on request threads; what pages were
made of is kept for seconds by `_boards`, `_pages` and `_badges` (see `pages.cache`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from healthmon.history import queries
from healthmon.pages import badge, feeds
from healthmon.pages.board import MAX_TARGETS, Board, build, summarise, targets_of
from healthmon.pages.cache import FRESH_S, Cache
from healthmon.pages.drawing import page_context
from healthmon.pages.models import StatusPage
from healthmon.targets.models import Target
from healthmon.truth.machine import NEW
from healthmon.truth.models import TargetState
from healthmon.truth.uptime import uptime

CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
SVG_CSP = "default-src 'none'; style-src 'unsafe-inline'"
METRICS = ("status", "uptime", "latency")
UPTIME_DAYS = (1, 7, 30, 90)
MAX_BADGES = 10_000

_boards: Cache[Board | None] = Cache()
_pages: Cache[bytes | None] = Cache()
_badges: Cache[str | None] = Cache(max_entries=2_048)
_names: Cache[dict[str, int]] = Cache()


def forget() -> None:
    """Make everything anew at the next request."""
    for cache in (_boards, _pages, _badges, _names):
        cache.clear()


@require_safe
def page(request: HttpRequest, slug: str) -> HttpResponseBase:
    return _answer(request, slug, "html", _html, "text/html; charset=utf-8", CSP)


@require_safe
def page_json(request: HttpRequest, slug: str) -> HttpResponseBase:
    answer = _answer(request, slug, "json", _json, "application/json", SVG_CSP)
    answer["Access-Control-Allow-Origin"] = "*"
    return answer


@require_safe
def page_rss(request: HttpRequest, slug: str) -> HttpResponseBase:
    page_url = request.build_absolute_uri(reverse("status_page", args=[slug]))
    feed_url = request.build_absolute_uri(reverse("status_page_rss", args=[slug]))

    def rss(board: Board) -> bytes | None:
        if not board.offer_rss:
            return None
        return feeds.as_rss(board, page_url=page_url, feed_url=feed_url)

    # By host as well, whose name is in its links.
    return _answer(
        request, slug, f"rss {page_url}", rss, "application/rss+xml; charset=utf-8", SVG_CSP
    )


@require_safe
def badge_svg(request: HttpRequest, slug: str) -> HttpResponseBase:
    metric = request.GET.get("metric", "status")
    days = request.GET.get("days", "30")
    if metric not in METRICS or days not in map(str, UPTIME_DAYS):
        raise Http404
    key = (slug, metric, days if metric == "uptime" else "")
    drawn = _badges.get(key, lambda: _draw(slug, metric, int(days)))
    if drawn is None:
        raise Http404
    answer = _respond(request, drawn.encode(), "image/svg+xml", SVG_CSP)
    answer["Access-Control-Allow-Origin"] = "*"
    return answer


def _answer(
    request: HttpRequest,
    slug: str,
    form: str,
    make: Callable[[Board], bytes | None],
    content_type: str,
    policy: str,
) -> HttpResponseBase:
    def made() -> bytes | None:
        board = _boards.get(slug, lambda: build(slug, timezone.now()))
        return None if board is None else make(board)

    body = _pages.get((slug, form), made)
    if body is None:
        raise Http404
    return _respond(request, body, content_type, policy)


def _respond(request: HttpRequest, body: bytes, content_type: str, policy: str) -> HttpResponseBase:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    answer: Any = HttpResponse(body, content_type=content_type)
    known = get_conditional_response(request, etag=etag)
    if isinstance(known, HttpResponseNotModified):
        answer = known
    answer["ETag"] = etag
    answer["Cache-Control"] = f"public, max-age={int(FRESH_S)}"
    answer["Content-Security-Policy"] = policy
    return answer  # type: ignore[no-any-return]


def _html(board: Board) -> bytes:
    return render_to_string("status/page.html", page_context(board)).encode()


def _json(board: Board) -> bytes | None:
    return feeds.as_json(board) if board.offer_json else None


def _draw(slug: str, metric: str, days: int) -> str | None:
    """The badge of a published page, or of a target whose badges are public; None for none."""
    row = StatusPage.objects.filter(slug=slug, published=True).first()
    if row is not None:
        if not row.offer_badge:
            return None
        targets = targets_of(row)
        if metric == "status":
            statuses = dict(targets.values_list("pk", "state__status")).values()
            return badge.status_badge(summarise([status or NEW for status in statuses])[0])
        if not (row.show_uptime if metric == "uptime" else row.show_latency):
            return None
        return _measured(metric, list(dict(targets.values_list("pk", "pk")))[:MAX_TARGETS], days)
    pk = _badge_targets().get(slug)
    if pk is None:
        return None
    if metric == "status":
        status = TargetState.objects.filter(target=pk).values_list("status", flat=True).first()
        return badge.status_badge(status or NEW)
    return _measured(metric, [pk], days)


def _measured(metric: str, ids: list[int], days: int) -> str:
    now = timezone.now()
    if metric == "uptime":
        found = uptime(ids, now - timedelta(days=days), now).values()
        known = sum(one.known_s for one in found)
        up = sum(one.up_s + one.degraded_s for one in found)
        return badge.uptime_badge(up / known if known else None, days)
    measured = queries.percentiles(ids, now - timedelta(days=1), now).values()
    slowest = [one.p95 for one in measured if one.p95 is not None]
    return badge.latency_badge(max(slowest, default=None))


def _badge_targets() -> dict[str, int]:
    """The targets whose badges anyone may read, by their names as slugs, and by `target-<id>`."""
    return _names.get("", _read_names)


def _read_names() -> dict[str, int]:
    rows = Target.objects.filter(badge=True).order_by("-pk").values_list("pk", "name")
    found: dict[str, int] = {}
    for pk, name in rows[:MAX_BADGES]:
        found[f"target-{pk}"] = pk
        # Of two whose names read alike, the elder has it.
        found[slugify(name)] = pk
    found.pop("", None)
    return found
