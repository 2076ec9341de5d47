"""What may be said of an incident through the API."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class CommentSerializer(serializers.Serializer[Any]):
    text = serializers.CharField(max_length=4_500)
    public = serializers.BooleanField(
        default=False, help_text="Show it on status pages, to everyone."
    )
