"""A target as the API takes it in and gives it out.

Tags, group and owner go by name, parents by id.  Secret options go in and never come out: a
document names them in `secrets`.  What one save writes, a checker sees by `updated_at`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from rest_framework import serializers

from healthmon.api.targetdocument import PLAIN, document
from healthmon.probes.registry import KindError, kind_of
from healthmon.targets.models import SEVERITIES, Tag, Target, TargetGroup
from healthmon.targets.options import problems, set_options
from healthmon.truth.models import STATUSES
from sinks.options import secret_names

MAX_NAMES = 100


class StateSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=STATUSES)
    since = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField()
    flapping = serializers.BooleanField()
    cert_expires_at = serializers.DateTimeField(allow_null=True)


class TargetSerializer(serializers.ModelSerializer[Target]):
    """Fields that a request may set, and those that only answers have."""

    options = serializers.DictField(
        required=False,
        help_text="What the kind of probe asks for. Secrets that are not given stay; null removes "
        "one. Other options are replaced together.",
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=63), required=False, max_length=MAX_NAMES
    )
    group = serializers.CharField(max_length=100, allow_null=True, required=False)
    owner = serializers.CharField(max_length=150, allow_null=True, required=False)
    parents = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        required=False,
        max_length=MAX_NAMES,
    )
    secrets = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Which secret options are set."
    )
    state = StateSerializer(read_only=True)

    class Meta:
        model = Target
        fields = (
            "id", *PLAIN, "options", "secrets", "tags", "group", "owner", "parents", "state",
            "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = ("id", "created_at", "updated_at")

    def validate_group(self, name: str | None) -> Any:
        return _named(TargetGroup, "name", name, "group")

    def validate_owner(self, name: str | None) -> Any:
        return _named(get_user_model(), get_user_model().USERNAME_FIELD, name, "user")

    def validate_parents(self, ids: list[int]) -> list[int]:
        wanted = sorted(set(ids))
        if self.instance is not None and self.instance.pk in wanted:
            raise serializers.ValidationError("A target is not its own parent.")
        known = set(Target.objects.filter(pk__in=wanted).values_list("pk", flat=True))
        missing = [one for one in wanted if one not in known]
        if missing:
            raise serializers.ValidationError(f"There is no target {missing[0]}.")
        return wanted

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            raise serializers.ValidationError(
                {name[:100]: ["There is no such field."] for name in unknown[:10]}
            )
        row = self.instance or Target()
        old_kind = row.kind
        for name in (*PLAIN, "group", "owner"):
            if name in attrs:
                setattr(row, name, attrs[name])
        if "options" in attrs or row.kind != old_kind or self.instance is None:
            _set_options(row, attrs.get("options", {}), keep_secrets=row.kind == old_kind)
        wrong = problems(row)
        if wrong:
            raise serializers.ValidationError({name: [text] for name, text in wrong.items()})
        attrs["row"] = row
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Target:
        return self._store(validated_data)

    def update(self, instance: Target, validated_data: dict[str, Any]) -> Target:
        return self._store(validated_data)

    @staticmethod
    def _store(values: dict[str, Any]) -> Target:
        row: Target = values["row"]
        with transaction.atomic(using="default"):
            row.save()
            if "tags" in values:
                row.tags.set(tags_named(values["tags"]))
            if "parents" in values:
                row.parents.set(values["parents"])
        return row

    def to_representation(self, instance: Target) -> dict[str, Any]:
        return document(instance.pk)


def _set_options(row: Target, values: dict[str, Any], *, keep_secrets: bool) -> None:
    try:
        secret = secret_names(kind_of(row.kind).Options)
    except KindError as error:
        raise serializers.ValidationError({"kind": [str(error)]}) from None
    keep: set[str] = set()
    if keep_secrets:
        keep = {name for name in row.secrets if name not in values}
        # A reference is a secret's value as well, kept among the options.
        values = {
            **{n: v for n, v in row.options.items() if n in secret and n not in values},
            **values,
        }
    given = {name: value for name, value in values.items() if value is not None}
    set_options(row, given, keep=keep)


def _named(model: Any, by: str, name: str | None, noun: str) -> Any:
    if not name:
        return None
    try:
        return model._default_manager.get(**{by: name})
    except ObjectDoesNotExist:
        raise serializers.ValidationError(f"There is no {noun} {name!r}.") from None


def tags_named(names: Iterable[str]) -> list[Tag]:
    """The tags of these names, made where there are none."""
    wanted = sorted({name for name in names if name})
    Tag.objects.bulk_create([Tag(name=name) for name in wanted], ignore_conflicts=True)
    return list(Tag.objects.filter(name__in=wanted))


class BulkSerializer(serializers.Serializer[Any]):
    """What can be set on many targets at once."""

    interval_s = serializers.FloatField(min_value=1, max_value=86_400, required=False)
    timeout_s = serializers.FloatField(min_value=0.1, max_value=120, required=False)
    retry_interval_s = serializers.FloatField(min_value=1, max_value=3600, required=False)
    failure_threshold = serializers.IntegerField(min_value=1, max_value=20, required=False)
    success_threshold = serializers.IntegerField(min_value=1, max_value=20, required=False)
    degraded_after_ms = serializers.FloatField(
        min_value=0.1, max_value=1e9, allow_null=True, required=False
    )
    paused = serializers.BooleanField(required=False)
    severity = serializers.ChoiceField(choices=SEVERITIES, required=False)
    slo_percent = serializers.FloatField(
        min_value=1, max_value=99.9999, allow_null=True, required=False
    )
    slo_days = serializers.IntegerField(min_value=1, max_value=90, required=False)
    public = serializers.BooleanField(required=False)
    badge = serializers.BooleanField(required=False)
    group = serializers.CharField(max_length=100, allow_null=True, required=False)
    add_tags = serializers.ListField(
        child=serializers.CharField(max_length=63), required=False, max_length=MAX_NAMES
    )
    remove_tags = serializers.ListField(
        child=serializers.CharField(max_length=63), required=False, max_length=MAX_NAMES
    )

    def validate_group(self, name: str | None) -> Any:
        return _named(TargetGroup, "name", name, "group")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            raise serializers.ValidationError(
                {name[:100]: ["It cannot be set on many targets."] for name in unknown[:10]}
            )
        if not attrs:
            raise serializers.ValidationError("There is nothing to set.")
        return attrs
