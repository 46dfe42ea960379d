"""Sends calls to providers: one HTTP client per event loop that keeps connections, streams, and follows no redirect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from controlplane.gateway.call import Call
from controlplane.gateway.target import Target
from quotas import tracing
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
WHOLE = 15.0
"""Seconds in which an answer that is read whole must have come: its caller waits for all of it."""


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
        own = endpoint.auth_headers
        self.names = frozenset(name.lower() for name in own)
        self.fields = [("Accept-Encoding", "identity"), *own.items()]
        self.patience = aiohttp.ClientTimeout(
            total=self.timeout, sock_connect=min(CONNECT, self.timeout), ceil_threshold=1e9
        )
        self._base = endpoint.base_url.rstrip("/")
        own_url = URL(self._base, encoded=True)
        self._origin = (own_url.scheme, own_url.raw_authority)

    def url_of(self, target: Target) -> URL:
        """Raises a problem for a path that leaves the provider's address."""
        url = URL(f"{self._base}{target.path}{'?' if target.query else ''}{target.query}", encoded=True)
        if (url.scheme, url.raw_authority) != self._origin:
            raise ProblemError("invalid-path", "Invalid path", 400, "The path leaves the provider's address.")
        return url

    def __repr__(self) -> str:
        return f"Route({self.config.spec.name}/{self.account})"


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
        headers = [pair for pair in call.headers if pair[0].lower() not in route.names]
        headers += route.fields
        body: bytes | AsyncIterator[bytes] | None = call.body.first if call.body.is_whole else call.body.rest()
        if body == b"" and call.method not in ("POST", "PUT", "PATCH"):
            body = None
        try:
            with tracing.span(call.method, "client", {"http.request.method": call.method}) as span:
                if own := tracing.headers():
                    headers = [*(pair for pair in headers if pair[0].lower() not in own), *own.items()]
                answer = await self._opened().request(
                    call.method, url, headers=headers, data=body, allow_redirects=False,
                    timeout=route.patience,
                )  # fmt: skip
                span.note(
                    {"http.response.status_code": answer.status, "server.address": answer.url.host or ""},
                    error=str(answer.status) if answer.status >= 400 else "",
                )
                return answer
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected from error
        except READ_ERRORS as error:
            raise unanswered(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=BUFFER,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type", "Accept-Encoding"),
                max_line_size=16_384,
                max_field_size=16_384,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


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


async def read_all(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body up to `limit` bytes, for the answers that may not be passed on. Raises `Unanswered`, also where it has
    not come in time: a provider that sends a byte now and then would occupy its caller and the account's slot."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(WHOLE):
            while part := await next_part(response):
                parts.append(part)
                size += len(part)
                if size > limit:
                    break
                await asyncio.sleep(0)
    except TimeoutError as error:
        raise Unanswered("timeout") from error
    return b"".join(parts)[:limit]
