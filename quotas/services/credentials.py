"""Stored secrets, encrypted anew with the newest key."""

from __future__ import annotations

from cryptography.fernet import InvalidToken
from django.db import transaction
from django.db.models import Model

from quotas import events
from quotas.errors import QuotaError
from quotas.models import Account, Project
from quotas.models.encrypted import Ciphertext, cipher

FIELDS: tuple[tuple[type[Model], str], ...] = ((Account, "credential"), (Project, "webhook_secret"))


class Unreadable(QuotaError):
    """Some stored secrets can't be decrypted with the keys in SLUICE_CREDENTIAL_KEYS; nothing was changed."""

    def __init__(self, rows: list[str]) -> None:
        super().__init__(f"{self.__doc__} These: {', '.join(rows)}.")
        self.rows = rows


def rotate(*, actor: str, reason: str = "") -> int:
    """Encrypt every stored secret with the first of the keys, so that older ones can be taken away. Returns how many.

    All or nothing: raises `Unreadable` where a key is missing. A secret that is changed meanwhile stays as it is then.
    """
    done, unreadable = 0, []
    with transaction.atomic():
        for model, field in FIELDS:
            rows = model._default_manager.exclude(**{field: None}).order_by("pk").values_list("pk", field)
            for pk, stored in rows.iterator(chunk_size=500):
                text = str.__str__(stored)
                try:
                    fresh = Ciphertext(cipher().rotate(text.encode()).decode())
                except InvalidToken:
                    unreadable.append(f"{model._meta.verbose_name} {pk}")
                    continue
                done += model._default_manager.filter(pk=pk, **{field: stored}).update(**{field: fresh})
        if unreadable:
            raise Unreadable(unreadable)
        events.emit(events.OperatorActed(actor, "credentials.rotate", "credentials", None, {"rotated": done}, reason))
    return done
