"""Actions on any selection of targets, "all 5,000 across pages" included.

An action that needs to be told something, or concerns more than a page, first shows a page of what
will change; that page is sent to the list's own address with the selection it stands for, never
with thousands of ids.  When the selection has become another meanwhile, it is shown again.
Runs in request threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet, Value
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from control.admin import ModelAdmin, action
from control.config.export import sections
from control.config.export_toml import dumps
from healthmon.admin import bulkwrites
from healthmon.admin.bulkforms import (
    SETTINGS,
    MaintenanceForm,
    NothingToSay,
    SettingsForm,
    setting_text,
)
from healthmon.targets.models import Target, TargetGroup

AT_ONCE = 100  # more than this is confirmed first
MAX_CLONED = 500
NAMES_SHOWN = 12
VALUES_SHOWN = 4
UNCHANGED = "as it is"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of what will change."""

    name: str
    now: str
    wanted: str


Apply = Callable[[list[int], Any], str]
Plan = Callable[[QuerySet[Target], Any], list[Change]]


class BulkActions(ModelAdmin):
    """The actions half of the targets' admin."""

    actions: Any = (
        "run_now", "pause", "resume", "change_settings", "add_maintenance", "clone", "export",
        "delete_chosen",
    )  # fmt: skip

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        found.pop("delete_selected", None)  # it would send every id, and read all that cascades
        return found

    @action(description="Run now", permissions=["change"])
    def run_now(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        def apply(ids: list[int], form: Any) -> str:
            awake = list(
                Target.objects.filter(pk__in=ids, paused=False).values_list("pk", flat=True)
            )
            bulkwrites.update(awake, run_requested_at=timezone.now())
            asleep = len(ids) - len(awake)
            skipped = f"; {asleep} paused, not asked" if asleep else ""
            return f"{_targets(len(awake))} asked to be probed now{skipped}."

        return self._do(request, rows, "run_now", "Run now", apply)

    @action(description="Pause", permissions=["change"])
    def pause(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        def apply(ids: list[int], form: Any) -> str:
            return f"{_targets(bulkwrites.update(ids, paused=True))} paused."

        return self._do(request, rows, "pause", "Pause", apply, plan=_paused_plan(True))

    @action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        def apply(ids: list[int], form: Any) -> str:
            return f"{_targets(bulkwrites.update(ids, paused=False))} resumed."

        return self._do(request, rows, "resume", "Resume", apply, plan=_paused_plan(False))

    @action(description="Change settings, group, tags …", permissions=["change"])
    def change_settings(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        def apply(ids: list[int], form: Any) -> str:
            cleaned, wanted = form.cleaned_data, form.wanted()
            if cleaned["add_tags"]:
                bulkwrites.add_tags(ids, cleaned["add_tags"])
            if cleaned["remove_tags"]:
                bulkwrites.remove_tags(ids, cleaned["remove_tags"])
            count = bulkwrites.update(ids, **wanted)
            return f"{_targets(count)} changed: {', '.join(_said(form))}."

        return self._do(
            request, rows, "change_settings", "Change settings", apply, SettingsForm, _settings_plan
        )

    @action(description="Add maintenance …", permissions=["change"])
    def add_maintenance(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        if not request.user.has_perm("healthmon.add_maintenancewindow"):
            raise PermissionDenied

        def apply(ids: list[int], form: Any) -> str:
            window = bulkwrites.add_maintenance(ids, **form.cleaned_data)
            return f"Maintenance “{window}” added for {_targets(len(ids))}."

        def plan(chosen: QuerySet[Target], form: Any) -> list[Change]:
            data = form.cleaned_data
            wanted = f"{data['starts_at']:%Y-%m-%d %H:%M} UTC, {data['minutes']} min"
            return [Change(name="maintenance", now="", wanted=wanted)]

        return self._do(
            request, rows, "add_maintenance", "Add maintenance", apply, MaintenanceForm, plan
        )

    @action(description="Clone …", permissions=["add"])
    def clone(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        def apply(ids: list[int], form: Any) -> str:
            made = bulkwrites.clone(ids)
            return f"{_targets(len(made))} cloned. The copies are paused: change them, then resume."

        if rows.count() > MAX_CLONED:
            self.message_user(
                request, f"At most {MAX_CLONED} are cloned at once.", level=messages.ERROR
            )
            return None
        return self._do(request, rows, "clone", "Clone", apply, plan=_nothing_changes, confirm=True)

    @action(description="Export as TOML", permissions=["view"])
    def export(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        names = set(rows.values_list("name", flat=True))
        by_name = {section.name: section for section in sections(["groups", "targets"])}
        entries = [one for one in by_name["targets"].export() if one.get("name") in names]
        # A file that names groups can be applied elsewhere only when it makes them.
        named = {entry.get("group") for entry in entries}
        groups = [one for one in by_name["groups"].export() if one.get("name") in named]
        text = dumps({"groups": groups, "targets": entries} if groups else {"targets": entries})
        response = HttpResponse(text, content_type="application/toml")
        response["Content-Disposition"] = 'attachment; filename="targets.toml"'
        return response

    @action(description="Delete …", permissions=["delete"])
    def delete_chosen(self, request: HttpRequest, rows: QuerySet[Target]) -> HttpResponse | None:
        def apply(ids: list[int], form: Any) -> str:
            count = bulkwrites.delete(ids)
            return f"{_targets(count)} deleted, with flips and incidents."

        return self._do(
            request, rows, "delete_chosen", "Delete", apply, plan=_nothing_changes, confirm=True
        )

    # --- parts -----------------------------------------------------------------------------

    def _do(
        self,
        request: HttpRequest,
        rows: QuerySet[Target],
        name: str,
        title: str,
        apply: Apply,
        form_class: type[forms.Form] = NothingToSay,
        plan: Plan | None = None,
        *,
        confirm: bool = False,
    ) -> HttpResponse | None:
        """Show what will change, until it is confirmed; then do it."""
        ids = list(rows.order_by("pk").values_list("pk", flat=True).distinct())
        chosen = Target.objects.filter(pk__in=ids)
        asked = request.POST.get("step", "")
        form = form_class(request.POST) if asked else form_class()
        needs_form = form_class is not NothingToSay
        at_once = not needs_form and not confirm and len(ids) <= AT_ONCE
        shown = request.POST.get("shown", "")
        valid = at_once or (bool(asked) and form.is_valid())
        if at_once or (asked == "apply" and valid and shown == str(len(ids))):
            wrong = _refused(chosen, form) if needs_form else ""
            if not wrong:
                names = list(chosen.values_list("name", flat=True)[: bulkwrites.NAMES_LOGGED])
                words = apply(ids, form)
                bulkwrites.log(
                    request.user, names, len(ids), words, deleted=name == "delete_chosen"
                )
                self.message_user(request, words, level=messages.SUCCESS)
                return None
        changes: list[Change] = []
        if valid or not needs_form:
            changes = plan(chosen, form) if plan is not None else []
            if needs_form and (wrong := _refused(chosen, form)):
                form.add_error(None, wrong)
                valid = False
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{title}: {_targets(len(ids))}",
            "form": form,
            "needs_form": needs_form,
            "changes": changes,
            "count": len(ids),
            "changed_meanwhile": asked == "apply" and shown != str(len(ids)),
            "names": list(chosen.order_by("name").values_list("name", flat=True)[:NAMES_SHOWN]),
            "more": max(len(ids) - NAMES_SHOWN, 0),
            "action": name,
            "verb": title,
            "danger": name == "delete_chosen",
            "ready": not needs_form or (valid and bool(asked)),
            "across": request.POST.get("select_across", "0"),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME)[:AT_ONCE],
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/healthmon/target/bulk.html", context)


def _targets(count: int) -> str:
    return f"{count:,} target{'' if count == 1 else 's'}"


def _spread(values: Counter[Any], text: Callable[[Any], str]) -> str:
    """`30 s (4,200), 60 s (800)`: what the chosen ones have now."""
    common = values.most_common(VALUES_SHOWN)
    listed = ", ".join(f"{text(value)} ({count:,})" for value, count in common)
    return f"{listed}, …" if len(values) > VALUES_SHOWN else listed


def _paused_plan(wanted: bool) -> Plan:
    def plan(chosen: QuerySet[Target], form: Any) -> list[Change]:
        words = {True: "paused", False: "not paused"}
        now = Counter(chosen.values_list("paused", flat=True))
        return [Change(name="paused", now=_spread(now, words.__getitem__), wanted=words[wanted])]

    return plan


def _nothing_changes(chosen: QuerySet[Target], form: Any) -> list[Change]:
    return []


def _settings_plan(chosen: QuerySet[Target], form: Any) -> list[Change]:
    wanted = form.wanted()
    names = [name for name in SETTINGS if name in wanted]
    found = []
    for name in names:
        now = Counter(chosen.values_list(name, flat=True))
        found.append(
            Change(
                name=str(form.fields[name].label or name).replace(" (seconds)", "").lower(),
                now=_spread(now, lambda value, name=name: setting_text(name, value)),  # type: ignore[misc]
                wanted=setting_text(name, wanted[name])
                if set(now) != {wanted[name]}
                else UNCHANGED,
            )
        )
    if "group_id" in wanted:
        groups = dict(TargetGroup.objects.values_list("pk", "name"))
        now = Counter(chosen.values_list("group_id", flat=True))
        found.append(
            Change(
                name="group",
                now=_spread(now, lambda pk: groups.get(pk, "no group")),
                wanted=groups.get(wanted["group_id"], "no group")
                if set(now) != {wanted["group_id"]}
                else UNCHANGED,
            )
        )
    for key, verb in (("add_tags", "added"), ("remove_tags", "removed")):
        for tag in form.cleaned_data[key]:
            have = chosen.filter(tags__name=tag).count()
            others = chosen.count() - have if verb == "added" else have
            words = verb if others else UNCHANGED
            found.append(Change(name=f"tag {tag}", now=f"{have:,} have it", wanted=words))
    return found


def _refused(chosen: QuerySet[Target], form: Any) -> str:
    """Why these settings cannot be given to all of them; "" when they can."""
    if not isinstance(form, SettingsForm):
        return ""
    wanted = form.wanted()
    if not {"interval_s", "timeout_s"} & set(wanted):
        return ""
    interval = _value(wanted, "interval_s")
    timeout = _value(wanted, "timeout_s")
    probed = chosen.exclude(kind="heartbeat")
    bad = probed.alias(most=Value(10.0) * interval).filter(most__lt=timeout).count()
    if not bad:
        return ""
    return (
        f"{_targets(bad)} would have a timeout of more than ten intervals and hardly be probed. "
        "Change both."
    )


def _value(wanted: dict[str, Any], name: str) -> Any:
    return Value(wanted[name]) if name in wanted else F(name)


def _said(form: SettingsForm) -> list[str]:
    """What was changed, for the message and the log."""
    found = [
        f"{form.fields[name].label or name} {value}"
        for name, value in form.wanted().items()
        if name in form.fields
    ]
    if "group_id" in form.wanted():
        found.append("group")
    for key, word in (("add_tags", "tags added"), ("remove_tags", "tags removed")):
        if form.cleaned_data[key]:
            found.append(f"{word}: {', '.join(form.cleaned_data[key])}")
    return found
