"""An account that is lent for one call."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from quotas import policies
from quotas.engine import headers as dialects
from quotas.engine.types import Admission, Outcome, Settled
from quotas.policies.pools import PoolConfig
from quotas.services import pools as service
from quotas.services.pools import Report


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
        self.config = config

    def __repr__(self) -> str:
        return f"<Lease {self.pool}/{self.account}>"

    @property
    def credential(self) -> str:
        """The account's credential, decrypted now. Raises `CredentialUnreadable`."""
        return self.config.credentials[self.account_id].reveal()

    @property
    def base_url(self) -> str:
        """The provider's address. Where the credential is a part of it (`{credential}`, as Telegram has it), it is put
        in: keep such an address out of logs."""
        url = self.config.provider.base_url
        return url.replace("{credential}", self.credential) if "{credential}" in url else url

    @property
    def auth_headers(self) -> dict[str, str]:
        """The header field that carries the credential; empty where the provider wants none."""
        name, colon, form = self.config.provider.auth_header.partition(":")
        return {name.strip(): form.strip().replace("{credential}", self.credential)} if colon else {}

    def settle_response(self, response: Any, *, usage: Mapping[str, int] | None = None) -> Outcome:
        """Settle by an answer: any object with `status_code` (or `status`) and `headers`.

        Its body is heard too, as far as it was read: some providers refuse in it, and most tell the actual use. Of what
        is no answer nothing is known.
        """
        return self.settle(
            status=status_of(response), headers=_member(response, "headers"), body=_body_of(response), usage=usage
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
        """Tell how the call went. The first time counts; later calls return what it came to."""
        if self.outcome is None:
            report = Report(status, headers, body, usage, error, latency)
            self._settle(service.outcome_of(report, self.config, self.account_id))
        assert self.outcome is not None
        return self.outcome

    def give_back(self) -> None:
        """Settle a lease whose call was never made: all that was reserved is free again."""
        if self.outcome is None:
            self._settle(Outcome("unused"))

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.settled = service.settle_outcome(self.id, outcome)

    def end(self, error: BaseException | None) -> None:
        """Settle by how the block ended, unless somebody has."""
        if self.outcome is not None:
            return
        if error is None:
            self._settle(Outcome("ok"))
        else:
            self._settle(failure(error, self))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)


def failure(error: BaseException, lease: Lease) -> Outcome:
    """What an exception of an HTTP client means: the answer that it carries, a timeout, a broken network, or nothing
    that is known."""
    answer = _answer_in(error)
    if answer is not None:
        report = Report(status_of(answer), _member(answer, "headers"), _body_of(answer))
        return service.outcome_of(report, lease.config, lease.account_id)
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names):
        word = "timeout"
    elif isinstance(error, ConnectionError) or names & {
        "NetworkError", "ConnectError", "ProtocolError", "TransportError", "ConnectionError", "NewConnectionError", "MaxRetryError", "ClientConnectionError",
    }:  # fmt: skip
        word = "network"
    else:
        return Outcome("unknown")
    return dialects.failed(word, type(error).__name__)


def lent(admission: Admission, pool: str) -> Lease:
    """The lease of an admission that was granted."""
    return Lease(admission, policies.pool_config(admission.pool or pool))


def status_of(response: object) -> int | None:
    """The HTTP status that an answer has, under the names that clients give it; None where it is no answer."""
    for name in ("status_code", "status"):
        value = _member(response, name)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:4])
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return int(value)
    return None


def _answer_in(error: BaseException) -> object:
    """The answer of which a client made an exception (`raise_for_status`), or None.

    Most keep it as `response`; of urllib's and aiohttp's the exception itself has its status and headers.
    """
    response = _member(error, "response")
    if status_of(response) is not None:
        return response
    return error if status_of(error) is not None and _member(error, "headers") is not None else None


def _body_of(response: object) -> object:
    """The body as far as it was read; a stream is left alone."""
    unread = (
        _member(response, "is_stream_consumed") is False  # httpx
        or getattr(response, "_content", None) is False  # requests
        or (hasattr(response, "_fp") and getattr(response, "_body", "") is None)  # urllib3
    )
    if unread:
        return None
    for name in ("content", "data", "text"):
        value = _member(response, name)
        if isinstance(value, bytes | bytearray | memoryview | str):
            return value
    return None


def _member(thing: object, name: str) -> Any:
    """A member of an object that is not ours; None where it has none, or where asking for it raises."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None
