"""Stored secrets, encrypted anew with the newest key."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.db import transaction
from django.db.models import Model

from quotas import events
from quotas.errors import LimiterUnavailable, QuotaError
from quotas.models.encrypted import CredentialUnreadable, EncryptedTextField
from quotas.runtime.connection import accounts
from quotas.services import account_changes, health
from quotas.services import accounts as pools
from quotas.snapshot import resolve


class Unreadable(QuotaError):
    """Some stored secrets can't be decrypted with the keys in SLUICE_CREDENTIAL_KEYS; nothing was changed."""

    def __init__(self, rows: list[str]) -> None:
        super().__init__(", ".join(rows))
        self.rows = rows


def secret_fields() -> Iterator[tuple[type[Model], str]]:
    """Every encrypted column, whichever app it belongs to."""
    for model in apps.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, EncryptedTextField):
                yield model, field.name


def rotate(*, actor: str, reason: str = "") -> int:
    """Encrypt every stored secret with the first of the keys, so that older ones can be taken away. Returns how many.

    All or nothing: raises `Unreadable` where a key is missing. A secret that is changed meanwhile stays as it is then.
    """
    done, unreadable = 0, []
    with transaction.atomic():
        for model, field in secret_fields():
            rows = model._default_manager.exclude(**{field: None}).order_by("pk").values_list("pk", field)
            for pk, stored in rows.iterator(chunk_size=500):
                try:
                    fresh = stored.renewed()
                except CredentialUnreadable:
                    unreadable.append(f"{model._meta.verbose_name} {pk}")
                    continue
                done += model._default_manager.filter(pk=pk, **{field: stored}).update(**{field: fresh})
        if unreadable:
            raise Unreadable(unreadable)
        events.emit(events.OperatorActed(actor, "credentials.rotate", "credentials", None, {"rotated": done}, reason))
    return done


def renewed(account_id: int) -> bool:
    """An account has got another credential: what the last one met (refusals, cooldowns, quotas) is deleted.

    One that an operator has disabled stays so. True if the account's state is another one now. Call it after the commit.
    """
    resolve.clear()
    found = account_changes.find_account(str(account_id))
    if found is None:
        return False
    spec = found[0].spec
    try:
        before = pools.state_of(spec, str(account_id))
        accounts().renew(str(account_id))
        health.persist(spec)
        after = pools.state_of(spec, str(account_id))
    except LimiterUnavailable as error:
        events.emit(
            events.AccountActionIncomplete(str(account_id), "clear its state, as its credential is new", str(error))
        )
        return False
    if before is None or after is None or before.state == after.state:
        return False
    events.emit(events.AccountChanged(spec.name, found[1].name, before.state, after.state, "another credential"))
    return True
