"""Addresses of admin pages by name, for rooms that cannot know which admins are installed."""

from __future__ import annotations

from django.urls import NoReverseMatch, reverse


def link(name: str, *args: object) -> str:
    """An address by name, or nothing where no admin of that name is installed."""
    try:
        return reverse(name, args=[str(arg) for arg in args])
    except NoReverseMatch:
        return ""


def sink_link(key: str) -> str:
    """A pipeline is keyed by its sink's identity, so its key finds the sink's page."""
    return link("admin:sinks_sinkconfig_change", key)
