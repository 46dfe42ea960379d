"""API accounts: state at a glance, why, until when. The credential goes in and never comes out."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from quotas.admin.account_state import STATES, StateFilter, headroom, named
from quotas.admin.audit import actor_of
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import Refused, bulk_action
from quotas.admin.dialogs import ReasonDialog, why
from quotas.admin.reason_action import reason_action
from quotas.admin.spans import spell_span
from quotas.engine.categories import ACCOUNT_FAILURES
from quotas.errors import LimiterUnavailable
from quotas.models import Account
from quotas.models.encrypted import validate_credential
from quotas.moments import spell_moment
from quotas.permissions import ACT_ON_ACCOUNTS
from quotas.services import account_actions, account_trial, credentials
from quotas.services.row_actions import of


class AccountForm(ReasonForm):
    credential = forms.CharField(
        required=False,
        strip=True,
        validators=[validate_credential],
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False),
        help_text="Encrypted at rest and never shown again. Leave blank to keep the current value.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.pop("credential", None)
        if self.instance.pk is None and "credential" in self.fields:
            self.fields["credential"].required = True
            self.fields["credential"].help_text = "Encrypted at rest and never shown again."

    def clean_credential(self) -> Any:
        return self.cleaned_data["credential"] or self.instance.credential


class TrialDialog(ReasonDialog):
    """Dialog: which path to call, and why."""

    path = forms.CharField(
        max_length=500,
        help_text="A path at the provider that costs little and needs the credential.",
        widget=UnfoldAdminTextInputWidget,
    )
    field_order = ["path", "reason"]

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        account = Account.objects.select_related("pool__provider").defer("credential").filter(pk=object_id or 0).first()
        self.fields["path"].initial = account_trial.path_of(account) if account is not None else "/"


def _test(request: HttpRequest, account: Account, dialog: Any) -> str:
    try:
        found = account_trial.try_account(
            account, dialog.cleaned_data["path"], actor=actor_of(request), reason=why(dialog)
        )
    except (account_trial.NotTested, LimiterUnavailable) as error:
        raise Refused(f"{account}: {error}") from None
    return f"{account}: {found}."


@admin.register(Account)
class AccountAdmin(SluiceAdmin):
    operate_permission = ACT_ON_ACCOUNTS
    empty_text = "An account is a credential at a provider. Add a provider and a pool first."
    form = AccountForm
    change_form_outer_before_template = "admin/sluice/account_live.html"
    list_display = [
        "name", "pool", "shown_state", "shown_until", "shown_why", "shown_health", "headroom", "calls", "shown_used",
    ]  # fmt: skip
    list_filter = [("pool", RelatedDropdownFilter), StateFilter]
    list_select_related = ["pool"]
    search_fields = ["name", "pool__name"]
    autocomplete_fields = ["pool"]
    actions_detail = ["test", "clear_cooldown", "close_breaker", "trip", "enable", "disable"]
    actions = [
        bulk_action(
            of(Account, "clear_cooldown"), question="End the cooldown of {count} {noun}, and of their pools?",
            done="Cooldown of {count} {noun} cleared.",
        ),
        bulk_action(
            of(Account, "close"), question="Close the circuit breaker of {count} {noun}?",
            done="Circuit breaker of {count} {noun} closed.",
        ),
        bulk_action(of(Account, "enable"), question="Enable {count} {noun}?", done="{count} {noun} enabled."),
        bulk_action(
            of(Account, "disable"), question="Disable {count} {noun}? They get no calls until they are enabled.",
            done="{count} {noun} disabled.", danger=True,
        ),
    ]  # fmt: skip
    readonly_fields = [
        "shown_used",
    ]  # fmt: skip
    fieldsets = [
        (None, {"fields": [("pool", "name"), ("weight", "enabled"), "credential", "disabled_reason"]}),
        ("Activity", {"fields": ["shown_used"]}),
    ]

    test = reason_action(
        "test", "Test", icon="network_check", form=TrialDialog, submit="Call", question="Call the provider with this account?",
        act=lambda request, account, dialog: _test(request, account, dialog),
        detail="One cheap request. It counts as a call, and its answer changes the account's state like any other.",
    )  # fmt: skip
    clear_cooldown = reason_action(
        "clear_cooldown", "Clear cooldown", path="clear-cooldown", icon="ac_unit", variant=ActionVariant.SUCCESS,
        verb=account_actions.clear_cooldown, done="{row}: cooldown cleared.", submit="Clear",
        question="End this cooldown?",
        detail="The provider may refuse again. A cooldown of the whole pool also ends.",
    )  # fmt: skip
    close_breaker = reason_action(
        "close_breaker", "Close breaker", path="close", icon="electrical_services", variant=ActionVariant.SUCCESS,
        verb=account_actions.close, done="{row}: circuit breaker closed.", submit="Close",
        question="Close the circuit breaker?", detail="Calls are sent at once, without a probe.",
    )  # fmt: skip
    trip = reason_action(
        "trip", "Trip breaker", icon="power_off", variant=ActionVariant.WARNING, verb=account_actions.trip,
        done="{row}: circuit breaker opened.", submit="Trip", question="Open the circuit breaker?",
        detail="The account gets no calls for as long as its pool's settings say.",
    )  # fmt: skip
    enable = reason_action(
        "enable", "Enable", icon="play_arrow", variant=ActionVariant.SUCCESS, verb=account_actions.enable,
        done="{row}: enabled.", question="Enable this account?", detail="It is used again at once.",
    )  # fmt: skip
    disable = reason_action(
        "disable", "Disable", icon="block", variant=ActionVariant.DANGER, verb=account_actions.disable,
        done="{row}: disabled.", question="Disable this account?",
        detail="It gets no new calls until it is enabled. Running calls continue.",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("pool").defer("credential")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who may not set a credential does not see its field: read-only, it would show what is stored."""
        sets = super().get_fieldsets(request, obj)
        sets = [part for part in sets if obj is not None or part[0] != "Activity"]
        if obj is None or self.has_change_permission(request, obj):
            return sets
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name != "credential"]})
            for title, options in sets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if obj is not None else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if change and not self.has_change_permission(request, obj):
            form.base_fields.pop("credential", None)
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and "credential" in form.changed_data:
            transaction.on_commit(partial(credentials.renewed, obj.pk))
        if change and "enabled" in form.changed_data and obj.enabled:
            transaction.on_commit(partial(account_actions.enable_after_config_change, obj.pk))

    @display(description="State", ordering="state", label=STATES)
    def shown_state(self, row: Account) -> str:
        return named(row.state if row.enabled else "disabled", paused=row.pool.paused_at is not None)

    @display(description="Until", ordering="until")
    def shown_until(self, row: Account) -> str:
        if row.until is None or row.until <= timezone.now():
            return "–"
        at, left = spell_moment(row.until, "H:i:s"), spell_span(row.until - timezone.now())
        return format_html('<span title="{}">in {}</span>', at, left)

    @display(description="Reason", ordering="why")
    def shown_why(self, row: Account) -> str:
        return (row.disabled_reason if not row.enabled else "") or row.why.replace("_", " ") or "–"

    @display(description="Quota left")
    def headroom(self, row: Account) -> str:
        return headroom(row.learned) or "–"

    @display(description="Health", ordering="health")
    def shown_health(self, row: Account) -> str:
        share = max(0.0, min(1.0, row.health))
        tone = "good" if share >= 0.8 else "fair" if share >= 0.4 else "poor"
        return format_html(
            '<span class="sl-meter sl-{}" title="{}"><i style="width:{}%"></i></span> {}%',
            tone,
            f"{row.health:.3f}",
            round(share * 100),
            round(share * 100),
        )

    @display(description="Calls")
    def calls(self, row: Account) -> str:
        counts = {name: count for name, count in row.errors.items() if isinstance(count, int)}
        failed = sum(count for name, count in counts.items() if name in ACCOUNT_FAILURES)
        other = sum(counts.values()) - failed
        refused = f", {other:,} refused" if other else ""
        return f"{row.successes:,} ok, {failed:,} failed{refused}"

    @display(description="Last used", ordering="last_used")
    def shown_used(self, row: Account) -> str:
        return f"{spell_span(timezone.now() - row.last_used)} ago" if row.last_used else "never"

    # Buttons

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only those that would change something."""
        row = self.get_object(request, str(object_id))
        if row is None:
            return []
        able = {"test", "trip", "disable"} if row.enabled else {"enable"}
        if row.state == "open":
            able.discard("trip")
        if row.enabled and row.state == "disabled":  # by the provider, which refused its credential
            able = {"enable", "disable"}
        elif row.enabled:
            able |= {"cooling_down": {"clear_cooldown"}, "open": {"close_breaker"}, "half_open": {"close_breaker"}}.get(
                row.state, set()
            )
        prefix = "quotas_account_"
        return [
            one
            for one in super().get_actions_detail(request, object_id)
            if one.action_name.removeprefix(prefix) in able
        ]
