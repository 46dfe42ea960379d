"""Where an account's calls go and how its credential is sent. The one place that decrypts credentials for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quotas.engine.dialects import redact
from quotas.engine.dialects.redaction import without
from quotas.engine.errors import LimiterUnavailable
from quotas.models.encrypted import CredentialUnreadable
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve
from quotas.snapshot.pools import PoolConfig


@dataclass(frozen=True)
class AccountEndpoint:
    """How to call the provider with one account. No repr shows the credential."""

    config: PoolConfig
    account_id: str
    account: str

    @property
    def pool(self) -> str:
        return self.config.spec.name

    @property
    def dialect(self) -> str:
        return self.config.provider.dialect

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.config.provider.settings

    @property
    def timeout(self) -> float:
        """Seconds."""
        return self.config.provider.timeout

    @cached_property
    def credential(self) -> str:
        """The secret in plain text; raises `CredentialUnreadable`."""
        return self.config.credentials[self.account_id].reveal()

    @property
    def base_url(self) -> str:
        """The provider's address; `{credential}` in it stands for the secret, as Telegram has it."""
        address = self.config.provider.base_url
        return address.replace("{credential}", self.credential) if "{credential}" in address else address

    @property
    def auth_headers(self) -> dict[str, str]:
        """The header that carries the credential; empty where the address does."""
        name, _, value = self.config.provider.auth_header.partition(":")
        if not name.strip():
            return {}
        return {name.strip(): value.strip().replace("{credential}", self.credential)}

    def has_another(self, project: str | None = None) -> bool:
        """Whether another account, of the pool or of the project's pools that it falls back to, is not disabled."""
        specs = [self.config.spec, *resolve.fallbacks_of(self.config.spec, project)]
        try:
            able = [state.id for spec in specs for state in accounts().states(spec) if state.state != "disabled"]
        except LimiterUnavailable:  # then by the configuration alone
            able = [one.id for spec in specs for one in spec.accounts if one.enabled]
        return any(identity != self.account_id for identity in able)

    def redact(self, text: str) -> str:
        """`text` without the credential, in case a provider echoes it."""
        return redact(text, self._secrets)

    @property
    def _secrets(self) -> list[str]:
        try:
            return [self.credential]
        except CredentialUnreadable:
            return []  # an unreadable credential was never sent

    def without_credential(self, value: Any) -> Any:
        """A JSON value without the credential in any of its strings; what else may look like one stays."""
        if isinstance(value, str):
            return without(value, self._secrets)
        if isinstance(value, list):
            return [self.without_credential(item) for item in value]
        if isinstance(value, dict):
            return {self.without_credential(name): self.without_credential(item) for name, item in value.items()}
        return value

    def __repr__(self) -> str:
        return f"AccountEndpoint({self.pool}/{self.account})"


_known: dict[str, AccountEndpoint] = {}
_known_from: resolve.ConfigSnapshot | None = None


def endpoint(account_id: str) -> AccountEndpoint:
    """The endpoint of an account; raises `KeyError` where it is gone."""
    global _known, _known_from
    snapshot = resolve.snapshot()
    if snapshot is not _known_from:
        _known = {
            account.id: AccountEndpoint(config, account.id, account.name)
            for config in snapshot.pools.values()
            for account in config.spec.accounts
        }
        _known_from = snapshot
    return _known[account_id]
