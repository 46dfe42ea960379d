"""One cheap call with one account, so that an operator sees what its credential is worth and what the provider says."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import urllib3

from quotas.audit import recorded
from quotas.engine.types import AdmitRequest, CallOutcome
from quotas.errors import QuotaError
from quotas.models import Account
from quotas.models.encrypted import CredentialUnreadable
from quotas.services import accounts as service
from quotas.services.account_lease import Lease, lease_of
from quotas.snapshot import resolve
from quotas.upstream import response as responses

PATHS = {
    "openai": "/v1/models", "azure": "/openai/models?api-version=2024-06-01", "anthropic": "/v1/models",
    "gemini": "/v1beta/models", "groq": "/openai/v1/models", "mistral": "/v1/models", "telegram": "/getMe",
    "github": "/rate_limit", "slack": "/api/auth.test", "discord": "/api/v10/users/@me",
    "shopify": "/admin/api/2024-07/shop.json",
}  # fmt: skip
"""For each dialect a request that costs nothing and needs the credential."""
MAX_SECONDS = 10.0
"""Seconds that the call may take: a page waits for it."""
MAX_BODY = 1_000_000
TOP_PRIORITY = 1

_connections = urllib3.PoolManager(num_pools=4, maxsize=2, retries=False)


class NotTested(QuotaError):
    """No call was made, for the reason that the message gives."""


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of the call. `error` is a short redacted message where it failed."""

    outcome: CallOutcome
    seconds: float

    def __str__(self) -> str:
        status = f"status {self.outcome.status}" if self.outcome.status else "no answer"
        words = f"{self.outcome.category.replace('_', ' ')}, {status} in {self.seconds:.2f} s"
        quotas = [
            f"{_number(quota.remaining)} of {_number(quota.limit)} {unit} left"
            for unit, quota in sorted(self.outcome.learned.items())
            if quota.remaining is not None or quota.limit is not None
        ]
        learned = f"; learned: {', '.join(quotas)}" if quotas else "; it said nothing about its quota"
        return words + (f": {self.outcome.error}" if self.outcome.error else "") + learned


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def path_of(account: Account) -> str:
    """The path that is called unless another one is given."""
    return PATHS.get(account.pool.provider.dialect, "/")


def try_account(account: Account, path: str, *, actor: str, reason: str) -> Tested:
    """Acquire this account, call `path` with GET, settle the call by its answer. It counts like any other call.

    Raises `NotTested` where the account can't be acquired or nothing can be sent, `LimiterUnavailable`.
    """
    with recorded(actor, "account.test", f"account:{account.pool.name}/{account.name}", reason) as draft:
        tested = _call(_acquired(account), path)
        draft.after = {"path": path, "category": tested.outcome.category, "status": tested.outcome.status}
    return tested


def _acquired(account: Account) -> Lease:
    spec = resolve.pool_spec(account.pool.name)
    alone = tuple(one for one in spec.accounts if one.id == str(account.pk))
    if not alone:
        raise NotTested("The account is not known yet. Try again in a second.")
    admission = service.admit(
        AdmitRequest(pool=replace(spec, accounts=alone), cost={"requests": 1}, priority=TOP_PRIORITY)
    )
    if not admission.allowed:
        why = ", ".join(reason.replace("_", " ") for reason in admission.reasons) or "it is not available"
        soon = f" Try again in {admission.retry_after:.0f} s." if admission.retry_after else ""
        raise NotTested(f"No call was made: {why}.{soon}")
    return lease_of(admission, spec.name)


def _call(lease: Lease, path: str) -> Tested:
    started = time.perf_counter()
    try:
        url = lease.base_url.rstrip("/") + path
        if not path.startswith("/") or urlsplit(url).netloc != urlsplit(lease.base_url).netloc:
            raise NotTested("The path must begin with / and stay on the provider's host.")
        answer = _connections.request(
            "GET", url, headers=lease.auth_headers, redirect=False, preload_content=False,
            timeout=min(lease.timeout, MAX_SECONDS),
        )  # fmt: skip
        with answer:
            body = answer.read(MAX_BODY)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        outcome = lease.settle(error=responses.fault_of(error) or "network")
    except (NotTested, CredentialUnreadable, ValueError) as error:
        lease.give_back()
        if isinstance(error, NotTested):
            raise
        # The message of a request that can't be written may have the credential in it.
        raise NotTested(f"The request can't be sent: {type(error).__name__}.") from None
    else:
        target = f"GET {path.partition('?')[0]}"
        outcome = lease.settle(status=answer.status, headers=answer.headers, body=body, target=target)
    return Tested(outcome, time.perf_counter() - started)
