"""Form fields for lists, fractions and time zones, so that no user types JSON."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from unfold.widgets import (
    UnfoldAdminSelect2Widget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)


def _is_json(text: str) -> bool:
    """Whether it is a list, an object or a quoted text in JSON, which would otherwise be taken for one odd item."""
    try:
        return isinstance(json.loads(text), list | dict | str)
    except ValueError:
        return False


class ListField(forms.CharField):
    """A list of texts. `separator` is a pattern; a name may contain a comma, so lists of subjects use one line each."""

    separator = r"[\n,]"
    joiner = "\n"

    def __init__(self, **kwargs: Any) -> None:
        given = {"required": False, "widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}
        super().__init__(**{**given, **kwargs})

    def prepare_value(self, value: Any) -> Any:
        return self.joiner.join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        if _is_json(value or ""):
            raise forms.ValidationError("Write the items as they are, without brackets and quotes.")
        found = [part.strip() for part in re.split(self.separator, value or "")]
        return [self.convert(part) for part in found if part]

    def convert(self, part: str) -> Any:
        return part

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or []))
        except forms.ValidationError:
            return True

    def validate(self, value: Any) -> None:
        if self.required and not value:
            raise forms.ValidationError(self.error_messages["required"], code="required")

    def run_validators(self, value: Any) -> None:
        """Each item is checked by the form."""


class LinesField(ListField):
    """One item on each line."""

    separator = r"\n"


class FractionsField(ListField):
    """Fractions in one line, such as `0.6, 0.8`."""

    separator = r"[\n,;]"
    joiner = ", "

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"widget": UnfoldAdminTextInputWidget, **kwargs})

    def convert(self, part: str) -> float:
        try:
            return float(part)
        except ValueError:
            raise forms.ValidationError(f"{part!r} is not a number. Use fractions such as `0.6, 0.8, 0.95`.") from None


class NamesOrAllField(ListField):
    """Names, where no name means all of them and the word `none` means not one."""

    NONE = "none"

    def prepare_value(self, value: Any) -> Any:
        return self.NONE if value == [] else super().prepare_value(value)

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        return [] if found == [self.NONE] else found or None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != initial)
        except forms.ValidationError:
            return True


@cache
def _zones() -> list[tuple[str, str]]:
    names = sorted(available_timezones() - {"localtime", "Factory"})
    return [(name, name) for name in ["UTC", *(name for name in names if name != "UTC")]]


class TimeZoneField(forms.ChoiceField):
    """A time zone by its name, chosen from those that this machine knows."""

    def __init__(self, *, searchable: bool = True, **kwargs: Any) -> None:
        widget = UnfoldAdminSelect2Widget if searchable else UnfoldAdminSelectWidget
        given = {
            "choices": _zones, "label": "Time zone", "initial": "UTC", "widget": widget,
            "error_messages": {"invalid_choice": "Unknown time zone %(value)s."},
        }  # fmt: skip
        super().__init__(**{**given, **kwargs})
