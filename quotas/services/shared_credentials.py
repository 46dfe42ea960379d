"""One credential in several pools: a refusal by the provider applies to all of its accounts.

A provider counts by credential, whatever its accounts are called here. So a refused credential disables each of them,
and a refusal by a limit cools each of them down.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from hashlib import blake2b

from quotas import events
from quotas.engine.categories import Category
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import AccountSpec, CallOutcome, Settled
from quotas.models.encrypted import Ciphertext, CredentialUnreadable
from quotas.runtime.connection import accounts
from quotas.services import health
from quotas.snapshot import resolve
from quotas.snapshot.pools import PoolConfig
from quotas.snapshot.resolve import ConfigSnapshot

_secret = secrets.token_bytes(32)
"""Of this process: what is kept of credentials can't be compared with anything outside of it."""
_marks: dict[str, bytes] = {}
"""By ciphertext, so that a change of configuration decrypts only what is new."""
_known: dict[str, list[tuple[PoolConfig, AccountSpec]]] = {}
_known_from: ConfigSnapshot | None = None


def of(account_id: str) -> list[tuple[PoolConfig, AccountSpec]]:
    """The accounts of other pools with this account's credential at the same provider's address."""
    global _known, _known_from
    snapshot = resolve.snapshot()
    if snapshot is not _known_from:
        _known, _known_from = _grouped(snapshot), snapshot
    group = _known.get(account_id, ())
    own = {config.spec.id for config, account in group if account.id == account_id}
    return [one for one in group if one[0].spec.id not in own]


def follow(settled: Settled, outcome: CallOutcome) -> None:
    """Let the account's twins follow what a call has just shown of their credential. Never fails the call's end."""
    if settled.repeated or not Category.of(settled.outcome).is_limit and settled.transition != "disabled":
        return
    try:
        for config, account in of(settled.account_id):
            _follow(config, account, settled, outcome)
    except LimiterUnavailable as error:
        events.emit(
            events.AccountActionIncomplete(
                settled.account_id, "accounts with its credential could not follow it", str(error)
            )
        )


def _follow(config: PoolConfig, account: AccountSpec, settled: Settled, outcome: CallOutcome) -> None:
    pool = config.spec
    if settled.transition == "disabled":
        if accounts().refuse(account.id):
            events.emit(events.AccountChanged(pool.name, account.name, "available", "disabled", "auth"))
            health.persist(pool)
    elif Category.of(settled.outcome).is_limit and outcome.scope == "account" and settled.cooldown > 0:
        accounts().cool(account.id, settled.cooldown, settled.outcome)


def _grouped(snapshot: ConfigSnapshot) -> dict[str, list[tuple[PoolConfig, AccountSpec]]]:
    """Accounts that share a credential, by each one's id."""
    groups: dict[bytes, list[tuple[PoolConfig, AccountSpec]]] = defaultdict(list)
    marks: dict[str, bytes] = {}
    for config in snapshot.pools.values():
        for account in config.spec.accounts:
            sealed = config.credentials[account.id]
            mark = marks[str.__str__(sealed)] = _mark(sealed)
            if mark:
                groups[mark + config.provider.base_url.encode()].append((config, account))
    _marks.clear()
    _marks.update(marks)
    return {account.id: group for group in groups.values() if len(group) > 1 for _, account in group}


def _mark(sealed: Ciphertext) -> bytes:
    known = _marks.get(str.__str__(sealed))
    if known is not None:
        return known
    try:
        return blake2b(sealed.reveal().encode(), digest_size=16, key=_secret).digest()
    except CredentialUnreadable:
        return b""
