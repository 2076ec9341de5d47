"""Status pages in the admin: what is shown to whom, and the addresses to hand out."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, action, display, register
from healthmon.pages.board import targets_of
from healthmon.pages.models import SWITCHES, StatusPage


class StatusPageForm(forms.ModelForm[StatusPage]):
    class Meta:
        model = StatusPage
        fields = (
            "title", "slug", "description", "published", "groups", "tags", *SWITCHES,
        )  # fmt: skip
        labels: ClassVar[dict[str, str]] = {
            "show_groups": "Groups",
            "show_uptime": "Uptime in percent",
            "show_ribbon": "Ribbon of 90 days",
            "show_incidents": "Incidents",
            "show_maintenance": "Maintenance",
            "show_latency": "Latency",
            "offer_rss": "RSS",
            "offer_json": "JSON",
            "offer_badge": "Badges",
        }
        widgets = {
            "description": forms.Textarea(attrs={"rows": 3}),
            "groups": forms.CheckboxSelectMultiple,
            "tags": forms.CheckboxSelectMultiple,
        }


@register(StatusPage)
class StatusPageAdmin(ModelAdmin):
    list_display = ("title", "address", "published", "targets", "updated")
    list_filter = ("published",)
    search_fields = ("title", "slug")
    prepopulated_fields = {"slug": ("title",)}
    form = StatusPageForm
    actions = ("publish", "withdraw")

    @display(description="Address")
    def address(self, row: StatusPage) -> SafeString | str:
        path = reverse("status_page", args=[row.slug])
        if not row.published:
            return path
        return format_html('<a href="{}">{}</a>', path, path)

    @display(description="Changed", ordering="updated_at")
    def updated(self, row: StatusPage) -> str:
        return f"{row.updated_at:%Y-%m-%d %H:%M} UTC"

    @display(description="Targets shown")
    def targets(self, row: StatusPage) -> int:
        return int(targets_of(row).count())

    @display(description="Also as")
    def addresses(self, row: StatusPage) -> SafeString | str:
        if row.pk is None or not row.published:
            return "Once it is published: RSS, JSON and a badge."
        links = [
            (reverse(name, args=[row.slug]), word)
            for name, word, offered in (
                ("status_page_rss", "RSS", row.offer_rss),
                ("status_page_json", "JSON", row.offer_json),
                ("badge", "badge", row.offer_badge),
            )
            if offered
        ]
        return format_html_join(", ", '<a href="{}">{}</a>', links) or "nothing"

    def get_fieldsets(self, request: HttpRequest, obj: StatusPage | None = None) -> Any:
        shown = ("groups", "tags", *(name for name in SWITCHES if name.startswith("show_")))
        offered = tuple(name for name in SWITCHES if name.startswith("offer_"))
        return [
            (None, {"fields": ("title", "slug", "description", "published", "addresses")}),
            (
                "What it shows",
                {
                    "fields": shown,
                    "description": "Targets of any of these groups or tags that may be public. "
                    "Addresses, causes and internal comments are never shown.",
                },
            ),
            ("What else it answers with", {"fields": offered}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: StatusPage | None = None) -> Any:
        return ("addresses",)

    @action(description="Publish", permissions=["change"])
    def publish(self, request: HttpRequest, rows: Any) -> None:
        count = rows.update(published=True)
        self.message_user(request, f"{count} published; shown within ten seconds.")

    @action(description="Withdraw", permissions=["change"])
    def withdraw(self, request: HttpRequest, rows: Any) -> None:
        count = rows.update(published=False)
        self.message_user(request, f"{count} withdrawn; gone within ten seconds.")
