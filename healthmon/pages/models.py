"""Status pages, in the control database."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from healthmon.targets.models import Tag, TargetGroup

SWITCHES = (
    "show_groups", "show_uptime", "show_ribbon", "show_incidents", "show_maintenance",
    "show_latency", "offer_rss", "offer_json", "offer_badge",
)  # fmt: skip


class StatusPage(models.Model):
    """A public page on the targets of some groups or tags."""

    slug = models.SlugField(max_length=63, unique=True)
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    published = models.BooleanField(default=False)
    groups = models.ManyToManyField(TargetGroup, blank=True, related_name="+")
    tags = models.ManyToManyField(Tag, blank=True, related_name="+")
    show_uptime = models.BooleanField(default=True)
    show_incidents = models.BooleanField(default=True)
    show_latency = models.BooleanField(default=False)
    show_ribbon = models.BooleanField(default=True)
    show_maintenance = models.BooleanField(default=True)
    show_groups = models.BooleanField(default=True, help_text="Otherwise one list of all.")
    offer_rss = models.BooleanField(default=True)
    offer_json = models.BooleanField(default=True)
    offer_badge = models.BooleanField(default=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["title"]
        verbose_name = "status page"

    def __str__(self) -> str:
        return self.title
