"""The accounts of a pool in a configuration file. Their credentials come from the environment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from django.core.exceptions import ValidationError
from django.db import transaction

from controlplane import environment
from controlplane.config import readers
from controlplane.config.records import Item, Member, Record
from quotas.models import Account, Pool
from quotas.models.encrypted import Ciphertext, CredentialUnreadable, validate_credential
from quotas.services import account_actions, credentials

ACCOUNT = Record(
    (
        Member("name", readers.name),
        Member("credential_env", readers.nullable(readers.environment_name), None),
        Member("weight", readers.whole(0, 1_000_000), 1),
        Member("enabled", readers.nullable(readers.flag), None),
    )
)


def problem(accounts: Sequence[Item], before: Sequence[Item]) -> str | None:
    """What is wrong with credentials: one that no header can carry, or none for an account that is new."""
    known = {account["name"] for account in before}
    for account in accounts:
        variable = account["credential_env"]
        given = _credential(account)
        if given is not None:
            try:
                validate_credential(given)
            except ValidationError as error:
                return f"the credential of {account['name']!r} in {variable} {error.message}"
        if account["name"] in known:
            continue
        if variable is None:
            return f"the new account {account['name']!r} needs a credential_env"
        if given is None:
            return f"the new account {account['name']!r} needs a credential: {variable} is not set"
    return None


def items(pool: Pool) -> list[Item]:
    """The stored accounts of a pool."""
    return [
        {
            "name": account.name,
            "credential_env": account.credential_env or None,
            "weight": account.weight,
            "enabled": None if account.enabled else False,
        }
        for account in sorted(pool.accounts.all(), key=lambda account: account.pk)
    ]


def changed_credentials(pool: str, accounts: Sequence[Item]) -> list[str]:
    """The names of the stored accounts whose variable has another credential now."""
    rows = {row.name: row for row in Account.objects.filter(pool__name=pool)}
    changed = []
    for account in accounts:
        given = _credential(account)
        if given is None or account["name"] not in rows:
            continue
        try:
            same = _sealed(rows[account["name"]]).reveal() == given
        except CredentialUnreadable:
            same = False
        if not same:
            changed.append(account["name"])
    return changed


def save(pool: Pool, wanted: Sequence[Item], changed: Sequence[str]) -> None:
    """Write the accounts, with the credentials of those in `changed` used from the commit on."""
    rows = {account.name: account for account in pool.accounts.all()}
    for item in wanted:
        account = rows.pop(item["name"], None) or Account(pool=pool, name=item["name"])
        if item["name"] in changed:
            transaction.on_commit(partial(credentials.renewed, account.pk))
        account.weight = item["weight"]
        account.credential_env = item["credential_env"] or ""
        if item["enabled"] is not None:
            if item["enabled"] and not account.enabled:
                account.disabled_reason = ""
                transaction.on_commit(partial(account_actions.enable_after_config_change, account.pk))
            account.enabled = item["enabled"]
        given = _credential(item)
        if given is not None:
            account.credential = given
        account.save()
    for account in rows.values():
        account.delete()


def _credential(item: Item) -> str | None:
    return environment.secret(item["credential_env"])


def _sealed(account: Account) -> Ciphertext:
    value = account.credential
    assert isinstance(value, Ciphertext)
    return value
