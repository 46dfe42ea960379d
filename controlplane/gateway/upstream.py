"""Sends calls to providers: one HTTP client per event loop that keeps connections, streams, and follows no redirect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import SplitResult, urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from controlplane.gateway.call import Call
from controlplane.gateway.target import PREFIX, Target
from quotas import tracing
from quotas.engine.dialects.redaction import forms_of
from quotas.rest.problems import ProblemError
from quotas.snapshot.pools import PoolConfig
from quotas.upstream.endpoint import AccountEndpoint

CONNECT = 10.0
"""Seconds in which a connection must be made."""
IDLE = 15.0
"""Seconds for which an unused connection is kept: less than providers do, so that few are closed under a call."""
KEPT = 2_000
"""Accounts whose `Route` is kept."""
BUFFER = 64 * 1024
"""Bytes of an answer that are read ahead of its caller."""
SOON = 5.0
"""Seconds for which the head of a good answer is not passed on without its body: an error that the body begins with is known
then before the caller has anything."""
WHOLE = 15.0
"""Seconds in which an answer that is read whole must have come: its caller waits for all of it."""
MAX_FIELDS = 500
"""Header fields of an answer."""
_SENT_ONCE = frozenset({"POST", "PATCH"})
"""Methods of requests that the HTTP client does not send again by itself. It does so with others where a connection that
was kept breaks off, since they are idempotent (https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2); callers are promised
that only safe ones are repeated."""
_PORTS = {"http": 80, "https": 443}
_NO_CONTENT_TYPE: CIMultiDict[None] = CIMultiDict({"Content-Type": None})
"""What the HTTP client does not add for a body by itself."""


class NotConnected(Exception):
    """No connection was made: the provider has not seen the call."""


class Unanswered(Exception):
    """The call may have been executed; `word` is `timeout` or `network`."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Route:
    """How calls of one account are sent. Raises `CredentialUnreadable`."""

    def __init__(self, endpoint: AccountEndpoint) -> None:
        self.config = endpoint.config  # kept, so that no other pool gets its identity
        self.account = endpoint.account
        self.timeout = endpoint.timeout
        self.credential = endpoint.credential
        self.secrets = tuple(form.encode() for form in forms_of(self.credential))
        own = endpoint.auth_headers
        self.names = frozenset(name.lower() for name in own)
        self.fields = [("Accept-Encoding", "identity"), *own.items()]
        self.patience = aiohttp.ClientTimeout(
            total=self.timeout, sock_connect=min(CONNECT, self.timeout), ceil_threshold=1e9
        )
        self._base = endpoint.base_url.rstrip("/")
        own_url = URL(self._base, encoded=True)
        self._origin = (own_url.scheme, own_url.raw_authority)
        self._site = _site_of(urlsplit(self._base))
        self._prefix = urlsplit(self._base).path

    def url_of(self, target: Target) -> URL:
        """Raises a problem for a path that leaves the provider's address."""
        url = URL(f"{self._base}{target.path}{'?' if target.query else ''}{target.query}", encoded=True)
        if (url.scheme, url.raw_authority) != self._origin:
            raise ProblemError("invalid-path", "Invalid path", 400, "The path leaves the provider's address.")
        return url

    def reached_here(self, address: bytes) -> bytes:
        """An address at the provider as its callers reach it, through this pool; any other one as it is.

        A redirect to the provider itself would take a caller, and its key, past the gateway.
        """
        try:
            parts = urlsplit(address.decode("ascii"))
            is_own = _site_of(parts) == self._site if parts.netloc else parts.path.startswith("/") and not parts.scheme
        except ValueError:
            return address
        path = parts.path.removeprefix(self._prefix)
        if not is_own or not parts.path.startswith(self._prefix) or not path.startswith("/"):
            return address
        query = f"?{parts.query}" if parts.query else ""
        return f"{PREFIX}{self.config.spec.name}{path}{query}".encode()

    def __repr__(self) -> str:
        return f"Route({self.config.spec.name}/{self.account})"


def _site_of(parts: SplitResult) -> tuple[str | None, int | None]:
    """Host and port; None for the port that the scheme has by itself, so that `http:` and `https:` of a host are one site."""
    port = parts.port
    return parts.hostname, None if port == _PORTS.get(parts.scheme) else port


class _PlainRequest(aiohttp.ClientRequest):
    """A request with no header field that its caller has not sent, but for its length and the provider's host."""

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        self._skip_auto_headers = _NO_CONTENT_TYPE


class Upstream:
    """Sends calls, for one event loop."""

    def __init__(self) -> None:
        self._routes: dict[tuple[int, str], Route] = {}
        self._session: aiohttp.ClientSession | None = None

    def route_to(self, config: PoolConfig, account_id: str, account: str) -> Route:
        """How calls of this account are sent, from memory: its credential is decrypted once for each version of its pool."""
        name = (id(config), account_id)
        known = self._routes.get(name)
        if known is None:
            if len(self._routes) >= KEPT:
                self._routes.clear()
            known = self._routes[name] = Route(AccountEndpoint(config, account_id, account))
        return known

    async def send(self, call: Call, route: Route) -> aiohttp.ClientResponse:
        """The answer's head; the caller closes it. Raises `NotConnected` and `Unanswered`."""
        url = route.url_of(call.target)
        headers = [pair for pair in call.headers if pair[0] not in route.names]
        headers += route.fields
        body: bytes | AsyncIterator[bytes] | None = call.body.first
        if not call.body.is_whole:
            body = call.body.rest()
            if call.body.declared is not None:  # many servers take no upload in chunks
                headers.append(("Content-Length", str(call.body.declared)))
        elif body == b"" and call.method not in ("POST", "PUT", "PATCH"):
            body = None
        try:
            if tracing.is_on():
                answer = await self._traced(call, url, headers, body, route)
            else:
                answer = await self._request(call, url, headers, body, route)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected from error
        except READ_ERRORS as error:
            raise unanswered(error) from error
        if answer.status < 200:  # another protocol, without a request for one
            answer.close()
            raise Unanswered("network")
        return answer

    async def _request(
        self,
        call: Call,
        url: URL,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        route: Route,
    ) -> aiohttp.ClientResponse:
        once = (sent_once,) if call.method not in _SENT_ONCE and not call.may_repeat else None
        return await self._opened().request(
            call.method, url, headers=headers, data=body, allow_redirects=False, timeout=route.patience, middlewares=once,
        )  # fmt: skip

    async def _traced(
        self,
        call: Call,
        url: URL,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        route: Route,
    ) -> aiohttp.ClientResponse:
        with tracing.span(call.method, "client", {"http.request.method": call.method}) as span:
            own = tracing.headers()
            headers = [*(pair for pair in headers if pair[0].lower() not in own), *own.items()]
            answer = await self._request(call, url, headers, body, route)
            span.note(
                {"http.response.status_code": answer.status, "server.address": url.host or ""},
                error=str(answer.status) if answer.status >= 400 else "",
            )
            return answer

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=BUFFER,
                request_class=_PlainRequest,
                max_line_size=16_384,
                max_field_size=16_384,
                max_headers=MAX_FIELDS,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def sent_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request that the HTTP client would send again where a connection that was kept breaks off."""
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientPayloadError("The connection ended without an answer.") from error


READ_ERRORS = (TimeoutError, aiohttp.ClientError, ConnectionError)
"""What reading an answer raises where it breaks off."""


def unanswered(error: BaseException) -> Unanswered:
    """How an answer broke off, by one of `READ_ERRORS`."""
    return Unanswered("timeout" if isinstance(error, TimeoutError) else "network")


async def next_part(response: aiohttp.ClientResponse) -> bytes:
    """The next part of the body; empty at its end. Raises `Unanswered` if it breaks off."""
    try:
        return await response.content.readany()
    except READ_ERRORS as error:
        raise unanswered(error) from error


def is_bodiless(method: str, status: int) -> bool:
    """Whether an answer has no body, whatever its fields say (https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1)."""
    return method == "HEAD" or status in (204, 304)


async def first_part(response: aiohttp.ClientResponse) -> bytes | None:
    """The beginning of the body, empty where there is none; None where it does not come soon. Raises `Unanswered`."""
    if response.content.total_bytes:
        return await next_part(response)
    try:
        async with asyncio.timeout(SOON):
            return await next_part(response)
    except TimeoutError:
        return None


async def read_all(response: aiohttp.ClientResponse, limit: int, seconds: float = 0.0) -> bytes:
    """The body up to `limit` bytes, for the answers that may not be passed on. Raises `Unanswered`, also where it has
    not come in `seconds` (else `WHOLE`): a provider that sends a byte now and then would occupy its caller and the account's slot."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds or WHOLE):
            while part := await next_part(response):
                parts.append(part)
                size += len(part)
                if size > limit:
                    break
                await asyncio.sleep(0)
    except TimeoutError as error:
        raise Unanswered("timeout") from error
    return b"".join(parts)[:limit]
