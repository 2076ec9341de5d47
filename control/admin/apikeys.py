"""API keys in the admin: made with scopes, shown once, revoked.

The token appears in the answer to the form that made the key and is written nowhere: not in the
session, not in a message, not in the log. Sending that form again (a reload) makes no second key.
Runs in request threads; holds no state.
"""

from __future__ import annotations

import secrets
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, action, display, register
from control.auth.keys import create_key
from control.auth.models import DEFAULT_TENANT, SCOPES, validate_limit
from control.models import ApiKey, Tenant

FORM_ONCE = "once"
_SESSION_ONCE = "collector_key_forms"
_KEPT_FORMS = 20


class ApiKeyForm(forms.ModelForm[ApiKey]):
    """Scopes as checkboxes; a hidden word by which a form sent twice is recognised."""

    scopes = forms.MultipleChoiceField(
        choices=[(name, f"{name}: {words}") for name, words in SCOPES.items()],
        widget=forms.CheckboxSelectMultiple,
        help_text="What requests with this key may do.",
    )
    once = forms.CharField(widget=forms.HiddenInput, required=False, max_length=64)

    class Meta:
        model = ApiKey
        fields = (
            "tenant",
            "name",
            "scopes",
            "any_tenant",
            "min_ack",
            "rate_per_s",
            "burst",
            "expires_at",
        )

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if cleaned and "burst" in cleaned and "rate_per_s" in cleaned:
            try:
                validate_limit(cleaned["rate_per_s"], cleaned["burst"])
            except forms.ValidationError as error:
                self.add_error("burst" if cleaned["burst"] else "rate_per_s", error)
        return cleaned

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        if (
            expires_at is not None
            and expires_at <= timezone.now()
            and "expires_at" in self.changed_data
        ):
            raise forms.ValidationError("This time has passed. Revoke the key to end it now.")
        return expires_at


@register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    form = ApiKeyForm
    list_display = (
        "name",
        "token",
        "tenant",
        "scope_names",
        "limit",
        "state",
        "last_used_at",
        "created_at",
    )
    list_select_related = ("tenant",)
    list_filter = ("tenant",)
    search_fields = ("name", "prefix")
    actions = ("revoke",)
    change_form_template = "admin/control/apikey_form.html"
    add_form_template = "admin/control/apikey_form.html"

    @display(description="Token")
    def token(self, key: ApiKey) -> SafeString:
        return format_html("<code>ck_{}_…</code>", key.prefix)

    @display(description="Scopes")
    def scope_names(self, key: ApiKey) -> str:
        names = ", ".join(str(scope) for scope in key.scopes)
        return f"{names} (any tenant)" if key.any_tenant else names

    @display(description="Records a second", ordering="rate_per_s")
    def limit(self, key: ApiKey) -> str:
        if key.rate_per_s is None:
            return "no limit"
        return f"{key.rate_per_s:,}" + (f", burst {key.burst:,}" if key.burst else "")

    @display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at is not None:
            return _dot("bad", f"revoked {timezone.localtime(key.revoked_at):%Y-%m-%d %H:%M}")
        if not key.is_valid(timezone.now()):
            return _dot("idle", "expired")
        if key.expires_at is not None:
            return _dot("good", f"until {timezone.localtime(key.expires_at):%Y-%m-%d %H:%M}")
        return _dot("good", "valid")

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        asked = ApiKeyForm.Meta.fields
        if obj is None:
            return [(None, {"fields": (*asked, FORM_ONCE)})]
        told = ("token", "state", "created_at", "last_used_at")
        return [(None, {"fields": told}), ("What it may do", {"fields": asked})]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ()
        # A key keeps its tenant: what it wrote is that tenant's.
        return ("token", "state", "created_at", "last_used_at", "tenant")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        initial[FORM_ONCE] = secrets.token_urlsafe(12)
        initial.setdefault("scopes", ["logs", "health", "events", "counters"])
        initial.setdefault("tenant", Tenant.objects.filter(slug=DEFAULT_TENANT).first())
        return initial

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A revoked key stays as a record of who could write; and while any row exists, ingest
        # asks for a key, so that deleting the last one cannot open the door.
        return False

    def get_urls(self) -> list[URLPattern]:
        revoke = path(
            "<path:object_id>/revoke/",
            self.admin_site.admin_view(self.revoke_view),
            name="control_apikey_revoke",
        )
        return [revoke, *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        once = request.POST.get(FORM_ONCE, "")
        if once and once in request.session.get(_SESSION_ONCE, []):
            messages.warning(
                request,
                "This form made its key already, and a token is shown only once. "
                "If it was not copied, revoke that key and create another.",
            )
            return HttpResponseRedirect(reverse("admin:control_apikey_changelist"))
        context = {
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            "closes_the_door": _keyless() and not ApiKey.objects.exists(),
            **(extra_context or {}),
        }
        response: HttpResponse = super().add_view(request, form_url, context)
        return response

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        made, token = create_key(
            tenant=obj.tenant,
            name=obj.name,
            scopes=obj.scopes,
            any_tenant=obj.any_tenant,
            min_ack=obj.min_ack,
            expires_at=obj.expires_at,
            rate_per_s=obj.rate_per_s,
            burst=obj.burst,
        )
        for field in ApiKey._meta.concrete_fields:
            setattr(obj, field.attname, getattr(made, field.attname))
        obj._state.adding = False
        # For response_add only, which takes it away again.
        request.collector_token = token  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        token = request.__dict__.pop("collector_token")
        once = request.POST.get(FORM_ONCE, "")[:64]
        known = request.session.get(_SESSION_ONCE, [])
        request.session[_SESSION_ONCE] = [*known, once][-_KEPT_FORMS:] if once else known
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Key “{obj.name}” created",
            "key": obj,
            "token": token,
            "closed_the_door": _keyless() and not ApiKey.objects.exclude(pk=obj.pk).exists(),
            "origin": f"{request.scheme}://{request.get_host()}",
        }
        response = TemplateResponse(request, "admin/control/apikey_created.html", context)
        response["Cache-Control"] = "no-store"
        response["Referrer-Policy"] = "no-referrer"
        return response

    @action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = 0
        for key in queryset.filter(revoked_at__isnull=True):
            self._revoke(request, key)
            count += 1
        self.message_user(
            request,
            f"{count} revoked. Every process refuses them within seconds.",
            messages.SUCCESS,
        )

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.get_object(request, unquote(object_id))
        if key is None:
            return HttpResponseRedirect(reverse("admin:control_apikey_changelist"))
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        if request.method == "POST":
            if key.revoked_at is None:
                self._revoke(request, key)
            self.message_user(
                request, f"{key} is revoked. Every process refuses it within seconds."
            )
            return HttpResponseRedirect(reverse("admin:control_apikey_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Revoke {key}?",
            "key": key,
        }
        return TemplateResponse(request, "admin/control/apikey_revoke.html", context)

    def _revoke(self, request: HttpRequest, key: ApiKey) -> None:
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        self.log_change(request, key, "Revoked.")


def _keyless() -> bool:
    """Whether this machine is served without a key until the first one is made."""
    return bool(settings.COLLECTOR.ingest.require_key == "auto")


def _dot(kind: str, words: str) -> SafeString:
    return format_html('<span class="dot dot-{}" aria-hidden="true"></span>{}', kind, words)
