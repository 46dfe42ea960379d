"""How an operator acts on an object from its page: a button, a dialog for the reason, the action, a message, the page again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from quotas.admin.audit import actor_of
from quotas.admin.bulk import Refused
from quotas.admin.dialogs import ReasonDialog, asking, back, why

Verb = Callable[..., object]
Act = Callable[[HttpRequest, Any, Any], object]


def reason_action(
    name: str,
    label: str,
    *,
    icon: str,
    question: str,
    detail: str,
    done: str = "",
    submit: str = "",
    path: str = "",
    verb: Verb | None = None,
    act: Act | None = None,
    form: type[BaseDialogForm] = ReasonDialog,
    variant: ActionVariant = ActionVariant.DEFAULT,
    permission: str = "operate",
    also: str = "",
) -> Any:
    """For a `ModelAdmin`'s attribute `name`, to be listed in `actions_detail`.

    Either `verb(row, actor=, reason=)`, after which `done` is shown with `{row}`; or `act(request, row, dialog)`, which
    may return another text to show. Both raise `Refused` where the row is in no state for it, which is shown as a warning.
    `also` is another permission that it needs, such as `payload`.
    """

    def run(model_admin: Any, request: HttpRequest, dialog: Any, object_id: str) -> HttpResponse:
        # The plain row: a list's own may be annotated or without some columns, and is not to be saved.
        row = model_admin.model._default_manager.get(pk=model_admin.row(request, object_id).pk)
        try:
            message = None
            if verb is not None:
                verb(row, actor=actor_of(request), reason=why(dialog))
            elif act is not None:
                message = act(request, row, dialog)
            text = message if isinstance(message, str) else done.format(row=row)
            if text:
                messages.success(request, text)
        except Refused as error:
            messages.warning(request, str(error))
        options = model_admin.model._meta
        return back(request, reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk]))

    run.__name__ = name
    return action(
        description=label,
        url_path=path or name,
        icon=icon,
        variant=variant,
        permissions=[permission, also] if also else [permission],
        dialog=asking(question, detail, submit or label, form),
    )(run)
