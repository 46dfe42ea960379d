"""Where an account's calls go and how its credential is sent. The one place that decrypts credentials for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from quotas.engine.headers import redact
from quotas.models import Account
from quotas.models.encrypted import Ciphertext
from quotas.snapshot import Snapshot


@dataclass(frozen=True)
class Endpoint:
    """One account's way to its provider. `timeout` in seconds. The credential shows in no repr."""

    account_id: str
    account: str
    pool: str
    dialect: str
    settings: Mapping[str, Any]
    timeout: float
    _base_url: str
    _auth_header: str
    _ciphertext: Ciphertext = field(repr=False)

    @cached_property
    def credential(self) -> str:
        """The secret in plain text; raises `CredentialUnreadable`."""
        return self._ciphertext.reveal()

    @property
    def base_url(self) -> str:
        """The provider's address; `{credential}` in it stands for the secret, as Telegram has it."""
        return self._base_url.replace("{credential}", self.credential)

    @property
    def auth_headers(self) -> dict[str, str]:
        """The header that carries the credential; empty where the address does."""
        name, _, value = self._auth_header.partition(":")
        if not name.strip():
            return {}
        return {name.strip(): value.strip().replace("{credential}", self.credential)}

    def redact(self, text: str) -> str:
        """`text` without the credential, in case a provider echoes it."""
        return redact(text, secrets=[self.credential])


def _load() -> dict[str, Endpoint]:
    return {
        str(row.pk): Endpoint(
            account_id=str(row.pk),
            account=row.name,
            pool=row.pool.name,
            dialect=row.pool.provider.dialect,
            settings=row.pool.provider.settings,
            timeout=row.pool.provider.timeout,
            _base_url=row.pool.provider.base_url,
            _auth_header=row.pool.provider.auth_header,
            _ciphertext=row.credential,  # type: ignore[arg-type]
        )
        for row in Account.objects.select_related("pool__provider")
    }


_snapshot: Snapshot[dict[str, Endpoint]] = Snapshot(_load)


def endpoint(account_id: str) -> Endpoint:
    """The endpoint of an account; raises `KeyError` where it is gone."""
    known = _snapshot.get()
    if account_id not in known:
        _snapshot.outdate()
        known = _snapshot.get()
    return known[account_id]
