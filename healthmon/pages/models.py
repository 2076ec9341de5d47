"""Status pages, in the control database."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from healthmon.targets.models import Tag, TargetGroup


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
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["title"]
        verbose_name = "status page"

    def __str__(self) -> str:
        return self.title
