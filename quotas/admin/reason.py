"""The field for the reason; its text goes to the audit log."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextInputWidget

HELP = "Recorded in the audit log."


class ReasonField(forms.CharField):
    def __init__(self, **kwargs: Any) -> None:
        given = {"max_length": 500, "label": "Reason", "help_text": HELP, "widget": UnfoldAdminTextInputWidget}
        super().__init__(**{**given, **kwargs})
