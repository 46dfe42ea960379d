"""An account that is acquired for one call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from quotas.engine import dialects
from quotas.engine.types import Admission, CallOutcome, Settled
from quotas.models.encrypted import CredentialUnreadable
from quotas.runtime.threads import off_loop
from quotas.services import accounts as service
from quotas.services import deferred_settlement, units
from quotas.services.accounts import Report
from quotas.snapshot import resolve
from quotas.snapshot.pools import PoolConfig
from quotas.upstream import response as responses
from quotas.upstream.endpoint import AccountEndpoint


class Lease:
    """`base_url` and `auth_headers` are for the call; `settle_response` reports its outcome.

    As a context manager it settles itself where the block did not: as a success, or by the kind of exception.
    """

    def __init__(self, admission: Admission, config: PoolConfig, request: str = "", project: str | None = None) -> None:
        assert admission.lease is not None and admission.account_id is not None
        self.id = admission.lease
        self.account = admission.account or ""
        self.account_id = admission.account_id
        self.pool = config.spec.name
        self.timeout = config.provider.timeout
        self.expires_in = admission.expires_in
        self.settled: Settled | None = None
        self.outcome: CallOutcome | None = None
        self._config = config
        self._ended = False
        self._request, self._project = request, project
        self._endpoint = AccountEndpoint(config, self.account_id, self.account)
        self._acquired_at = time.perf_counter()

    def __repr__(self) -> str:
        return f"<Lease {self.pool}/{self.account}>"

    @property
    def credential(self) -> str:
        """The account's credential, decrypted now. Raises `CredentialUnreadable`."""
        return self._endpoint.credential

    @property
    def base_url(self) -> str:
        """The provider's address, with the credential in it where the provider wants it there (Telegram)."""
        return self._endpoint.base_url

    @property
    def auth_headers(self) -> dict[str, str]:
        """The header field that carries the credential; empty where the provider wants none."""
        return self._endpoint.auth_headers

    def settle_response(
        self, response: Any, *, usage: Mapping[str, int] | None = None, body: object = None
    ) -> CallOutcome:
        """Settle by an answer: any object with `status_code` (or `status`) and `headers`.

        A body that has been read is looked at, for the actual use and an error's kind. `body`: the same, where the
        client has it elsewhere (`urllib`, a stream); `usage`: units that are known better.
        """
        return self.settle(
            status=responses.status_of(response),
            headers=responses.headers_of(response),
            body=responses.body_of(response) if body is None else body,
            usage=usage,
            latency=responses.latency_of(response),
            target=responses.target_of(response),
        )

    def settle(
        self,
        *,
        status: int | None = None,
        headers: object = None,
        body: object = None,
        usage: Mapping[str, int] | None = None,
        error: str = "",
        latency: float | None = None,
        target: str = "",
    ) -> CallOutcome:
        """Report how the call went. The first report counts; later calls return its outcome.

        `error`, where no answer came: `timeout`, `network`, or `cancelled` where the caller gave up itself. `latency` in
        seconds; by default the time since the account was acquired. `target`: method and path of the request, such as
        `POST /v1/chat`: one that is closed to every account disables none of them. Raises `UnknownUnit` for a unit in
        `usage` that nothing counts, with nothing settled.
        """
        units.check(usage or {})
        if self.outcome is None:
            report = Report(status, headers, body, usage, error, self._took() if latency is None else latency)
            outcome = service.outcome_of(report, self._config, self.account_id)
            self.outcome = self._named(outcome, target)
        self._settle(self.outcome)
        return self.outcome

    def give_back(self) -> None:
        """Settle a lease whose call was never made: all that was reserved is free again."""
        if self.outcome is None:
            self._settle(CallOutcome("unused"))

    def end(self, error: BaseException | None) -> None:
        """Settle by how the block ended, unless somebody has."""
        if self.outcome is None:
            if error is None:
                self.outcome = CallOutcome("ok", latency=self._took())
            else:
                self.outcome = self._named(failure(error, self), responses.target_of(responses.answer_in(error)))
        self._settle(self.outcome)

    def has_another(self) -> bool:
        """Whether another account of the pool, or of its fallbacks, is not disabled."""
        return off_loop(lambda: self._endpoint.has_another(self._project))

    def _named(self, outcome: CallOutcome, target: str) -> CallOutcome:
        """The outcome with the request. In the address of some providers is the credential."""
        if outcome.category not in ("ok", "auth"):
            return outcome
        return replace(outcome, target=self._endpoint.redact(target) if target else "", request=self._request)

    def _settle(self, outcome: CallOutcome) -> None:
        """Once, and without raising: the call is made. Where Redis does not answer, it is settled when it does."""
        self.outcome = outcome
        if self._ended:
            return
        self._ended = True
        what = f"lease {self.pool}/{self.account}"

        def settle() -> Settled | None:
            return service.settle_outcome(self.id, outcome)

        found = off_loop(lambda: deferred_settlement.settled(what, settle, life=self.expires_in))
        self.settled = found if isinstance(found, Settled) else None

    def _took(self) -> float:
        return time.perf_counter() - self._acquired_at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)


def failure(error: BaseException, lease: Lease) -> CallOutcome:
    """What an exception of an HTTP client means: the answer in it, a timeout, a broken network, or nothing known."""
    if isinstance(error, CredentialUnreadable):
        return CallOutcome("unused")  # no call was made
    reported = responses.reported_in(error)
    if reported is not None:
        report = Report(reported.status, reported.headers, reported.body)
        return service.outcome_of(report, lease._config, lease.account_id)
    word = responses.fault_of(error)
    return dialects.failed(word, type(error).__name__, latency=lease._took()) if word else CallOutcome("unknown")


def lease_of(admission: Admission, pool: str, request: str = "", project: str | None = None) -> Lease:
    """The lease of an admission that was granted; `request` stands for the call with all of its attempts."""
    return Lease(admission, resolve.pool_config(admission.pool or pool), request, project)
