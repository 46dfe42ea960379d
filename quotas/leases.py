"""An account that is lent for one call."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from quotas import answers, policies
from quotas.engine import headers as dialects
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import Admission, Outcome, Settled
from quotas.models.encrypted import CredentialUnreadable
from quotas.policies.pools import PoolConfig
from quotas.services import pools as service
from quotas.services.pools import Report
from quotas.threads import off_loop
from quotas.upstream import Endpoint

logger = logging.getLogger(__name__)


class Lease:
    """`base_url` and `auth_headers` are for the call; `settle_response` tells how it went.

    As a context manager it settles itself where nobody did: as a success, or by the kind of exception.
    """

    def __init__(self, admission: Admission, config: PoolConfig) -> None:
        assert admission.lease is not None and admission.account_id is not None
        self.id = admission.lease
        self.account = admission.account or ""
        self.account_id = admission.account_id
        self.pool = config.spec.name
        self.timeout = config.provider.timeout
        self.expires_in = admission.expires_in
        self.settled: Settled | None = None
        self.outcome: Outcome | None = None
        self._config = config
        self._way = Endpoint(config, self.account_id, self.account)
        self._lent = time.perf_counter()

    def __repr__(self) -> str:
        return f"<Lease {self.pool}/{self.account}>"

    @property
    def credential(self) -> str:
        """The account's credential, decrypted now. Raises `CredentialUnreadable`."""
        return self._way.credential

    @property
    def base_url(self) -> str:
        """The provider's address, with the credential in it where the provider wants it there (Telegram)."""
        return self._way.base_url

    @property
    def auth_headers(self) -> dict[str, str]:
        """The header field that carries the credential; empty where the provider wants none."""
        return self._way.auth_headers

    def settle_response(self, response: Any, *, usage: Mapping[str, int] | None = None, body: object = None) -> Outcome:
        """Settle by an answer: any object with `status_code` (or `status`) and `headers`.

        A body that has been read is looked at, for the actual use and an error's kind. `body`: the same, where the
        client has it elsewhere (`urllib`, a stream); `usage`: units that are known better.
        """
        return self.settle(
            status=answers.status_of(response),
            headers=answers.headers_of(response),
            body=answers.body_of(response) if body is None else body,
            usage=usage,
            latency=answers.latency_of(response),
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
    ) -> Outcome:
        """Tell how the call went. The first time counts; later calls return what it came to.

        `latency` in seconds; the time since the account was lent where it is not given.
        """
        if self.outcome is None:
            report = Report(status, headers, body, usage, error, self._took() if latency is None else latency)
            self.outcome = service.outcome_of(report, self._config, self.account_id)
        self._settle(self.outcome)
        return self.outcome

    def give_back(self) -> None:
        """Settle a lease whose call was never made: all that was reserved is free again."""
        if self.outcome is None:
            self._settle(Outcome("unused"))

    def end(self, error: BaseException | None) -> None:
        """Settle by how the block ended, unless somebody has. Redis away fails nobody here: the lease expires then."""
        if self.outcome is None:
            if error is None:
                self.outcome = Outcome("ok", latency=self._took())
            else:
                self.outcome = failure(error, self)
        try:
            self._settle(self.outcome)
        except LimiterUnavailable:
            logger.warning("a lease of %s/%s could not be settled and will expire", self.pool, self.account)

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if self.settled is None:
            self.settled = off_loop(lambda: service.settle_outcome(self.id, outcome))

    def _took(self) -> float:
        return time.perf_counter() - self._lent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)


def failure(error: BaseException, lease: Lease) -> Outcome:
    """What an exception of an HTTP client means: the answer in it, a timeout, a broken network, or nothing known."""
    if isinstance(error, CredentialUnreadable):
        return Outcome("unused")  # no call was made
    said = answers.said_in(error)
    if said is not None:
        report = Report(said.status, said.headers, said.body)
        return service.outcome_of(report, lease._config, lease.account_id)
    word = answers.fault_of(error)
    return dialects.failed(word, type(error).__name__, latency=lease._took()) if word else Outcome("unknown")


def lent(admission: Admission, pool: str) -> Lease:
    """The lease of an admission that was granted."""
    return Lease(admission, policies.pool_config(admission.pool or pool))
