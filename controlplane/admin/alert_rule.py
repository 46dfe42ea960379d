"""Alert rules: which alerts are sent where. The address can be set and is never shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminPasswordWidget

from controlplane.alerts import channels, conditions, outbox
from controlplane.alerts.kinds import KINDS
from controlplane.models import AlertNotice, AlertRule
from quotas.admin.audit import actor_of
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import Refused, switch_actions
from quotas.admin.dialogs import why
from quotas.admin.fields import LinesField
from quotas.admin.reason_action import reason_action
from quotas.moments import spell_moment

ADDRESS_HELP = (
    "webhook+https://… posts JSON; mailto://, slack://, tgram://, … in apprise's notation. Encrypted at"
    " rest and never shown again."
)


class AlertRuleForm(ReasonForm):
    when = forms.MultipleChoiceField(
        choices=tuple(KINDS.items()), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )
    conditions = LinesField(
        help_text="One on each line: `dead_letters > 5% in 10m`, `dead_letters > 20 in 1h of imports`, `call_errors > 10% in"
        " 5m of llm`. A share needs at least 10 jobs or calls. `of` names one queue or pool."
    )
    to = forms.CharField(
        required=False,
        strip=True,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False),
        help_text=f"{ADDRESS_HELP} Leave blank to keep the current value.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.pop("to", None)
        if self.instance.pk is None and "to" in self.fields:
            self.fields["to"].required = True
            self.fields["to"].help_text = ADDRESS_HELP

    def clean_conditions(self) -> list[str]:
        try:
            return [str(conditions.parse(text)) for text in self.cleaned_data["conditions"]]
        except conditions.BadCondition as error:
            raise forms.ValidationError(str(error)) from None

    def clean(self) -> dict[str, Any]:
        given = super().clean()
        if not given.get("when") and not given.get("conditions") and "conditions" not in self.errors:
            self.add_error("when", "Choose a kind of alert, or enter a condition.")
        return given

    def clean_to(self) -> Any:
        given = self.cleaned_data["to"]
        if not given:
            return self.instance.to
        if wrong := channels.problem(given):
            raise forms.ValidationError(f"This {wrong}.")
        return given


def _send_test(request: HttpRequest, row: AlertRule, reason: str) -> str:
    error = outbox.send_test(row, actor=actor_of(request), reason=reason)
    if error:
        raise Refused(f"{row}: not delivered ({error}).")
    return f"{row}: the test was delivered."


@admin.register(AlertRule)
class AlertRuleAdmin(SluiceAdmin):
    empty_text = "An alert rule sends alerts of some kinds to a webhook, by mail or to a chat."
    form = AlertRuleForm
    list_display = ["name", "shown_when", "shown_conditions", "enabled", "shown_last"]
    search_fields = ["name"]
    actions_detail = ["send_test"]
    actions = switch_actions(AlertRule, "They send nothing until they are enabled.")
    fieldsets = [(None, {"fields": [("name", "enabled"), "when", "conditions", "to"]})]

    send_test = reason_action(
        "send_test", "Send a test", path="test", icon="send", permission="change", submit="Send",
        act=lambda request, row, dialog: _send_test(request, row, why(dialog)),
        question="Send a test notification?",
        detail="It is sent to this rule's address at once, as a resolved alert.",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("to")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if change and not self.has_change_permission(request, obj):
            form.base_fields.pop("to", None)
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The field is hidden for people who may not set an address: as read-only text it would show the stored one."""
        sets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return sets
        return [(None, {"fields": [("name", "enabled"), "shown_when", "shown_conditions"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        may = obj is None or self.has_change_permission(request, obj)
        return (
            super().get_readonly_fields(request, obj) if may else ["name", "enabled", "shown_when", "shown_conditions"]
        )

    @display(description="When")
    def shown_when(self, row: AlertRule) -> str:
        return ", ".join(kind.replace("_", " ") for kind in row.when)

    @display(description="Conditions")
    def shown_conditions(self, row: AlertRule) -> str:
        return "; ".join(row.conditions) or "–"

    @display(description="Last notification")
    def shown_last(self, row: AlertRule) -> str:
        last = AlertNotice.objects.filter(rule=row).order_by("-pk").first()
        if last is None:
            return "none"
        if last.delivered_at:
            return f"delivered at {spell_moment(last.delivered_at)}"
        return last.error or "pending"
