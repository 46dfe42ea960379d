"""An adaptive policy's members as fields of its form: bounds, and what moves the limit between them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from quotas.models import Pool
from quotas.snapshot.adaptive_rule import AdaptiveRule

PREFIX = "adaptive_"
MEMBERS = {
    "floor": ("Floor", "The limit never goes below. Leave floor and ceiling blank for a fixed limit."),
    "ceiling": ("Ceiling", "The limit never goes above."),
    "errors": ("Error share", "Above this share of failed calls the limit goes down. Blank: 0.2."),
    "latency": (
        "Slow call",
        "Seconds. The limit goes down when more than a tenth of the calls take longer. Blank: ignored.",
    ),
    "use": (
        "Provider quota share",
        "The limit goes down when the provider reports more of its quota used. Blank: 0.9.",
    ),
    "pool": ("Pool", "Its calls count too. Blank: only calls that are reported for the policy's subjects."),
    "increase": ("Step up", "Share of the span from floor to ceiling. Blank: 0.05."),
    "decrease": ("Step down", "Share of the limit. Blank: 0.3."),
    "interval": ("Interval", "Seconds between two decisions. Blank: 5."),
    "samples": ("Calls per decision", "With fewer calls the decision waits. Blank: 10."),
}
WHOLE = {"floor", "ceiling", "samples"}
ROWS: list[Any] = [
    ("adaptive_floor", "adaptive_ceiling"), ("adaptive_errors", "adaptive_latency"), ("adaptive_use", "adaptive_pool"),
    ("adaptive_increase", "adaptive_decrease"), ("adaptive_interval", "adaptive_samples"),
]  # fmt: skip


def _pools() -> list[tuple[str, str]]:
    return [("", "–"), *((name, name) for name in Pool.objects.order_by("name").values_list("name", flat=True))]


def _field(name: str) -> forms.Field:
    label, help_text = MEMBERS[name]
    given: dict[str, Any] = {"label": label, "help_text": help_text, "required": False}
    if name == "pool":
        return forms.ChoiceField(choices=_pools, widget=UnfoldAdminSelectWidget, **given)
    if name in WHOLE:
        return forms.IntegerField(widget=UnfoldAdminIntegerFieldWidget, **given)
    return forms.FloatField(widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}), **given)


class AdaptiveFields(forms.ModelForm):
    """To be inherited by a form of policies."""

    adaptive_floor = _field("floor")
    adaptive_ceiling = _field("ceiling")
    adaptive_errors = _field("errors")
    adaptive_latency = _field("latency")
    adaptive_use = _field("use")
    adaptive_pool = _field("pool")
    adaptive_increase = _field("increase")
    adaptive_decrease = _field("decrease")
    adaptive_interval = _field("interval")
    adaptive_samples = _field("samples")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, value in (self.instance.adaptive or {}).items():
            if PREFIX + name in self.fields:
                self.initial[PREFIX + name] = value

    def clean_adaptive(self, given: dict[str, Any]) -> None:
        """Set the policy's `adaptive` from the fields, or add an error to the field that is wrong."""
        if any(name.startswith(PREFIX) for name in self.errors):
            return
        rule = {name: value for name in MEMBERS if (value := given.get(PREFIX + name)) is not None and value != ""}
        if not rule:
            self.instance.adaptive = None
            return
        try:
            self.instance.adaptive = AdaptiveRule.of(rule).document()
        except ValueError as error:
            text = str(error).removeprefix("adaptive: ")
            at = next((one.name for one in fields(AdaptiveRule) if one.name in text.split()[:3]), "floor")
            self.add_error(PREFIX + at, f"{text[:1].upper()}{text[1:]}.")
        if given.get("limit") is None:
            self.add_error("limit", "An adaptive policy starts from its limit: set one.")
