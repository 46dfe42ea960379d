"""Many coroutines, one connection: scripts for an event loop, without a thread per question.

The commands of one turn of the loop leave in one write, and replies come back in the order of the commands. As in
`transport`, nothing is repeated that the server may have run: where the connection ends or is silent for longer than
the timeout, all who wait on it get LimiterUnavailable.

    run() -> the payload waits for the end of the turn -> one write -> replies, first in, first out
    start(linger=True) -> the payload waits for the next write, at most `LINGER` seconds
    silent for `timeout` -> connection closed, all of its questions fail; the next question opens another one
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import hiredis
import redis as redis_py
from redis.cluster import RedisCluster

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.limits.wait_queue import GRACE
from quotas.engine.redis import library
from quotas.engine.redis.library import Library
from quotas.engine.redis.scripts import Call, pack
from quotas.engine.redis.transport import Reply, ScriptError, Transport, Wire, is_unavailable
from quotas.engine.types import Decision

T = TypeVar("T")


class InThread(Protocol):
    """Runs a function off the event loop."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


DEFAULT_TIMEOUT = 0.1
TICKS_PER_TIMEOUT = 4
"""Looks within one timeout; an answer is waited for by that many and at most one more."""
_ENOUGH = 64 * 1024
"""Bytes that are sent without waiting for the end of the turn."""
LINGER = 0.002
"""Seconds that a command that is not urgent stays unsent at most: the next one that is sent takes it along."""


class KeptReply(asyncio.Future[Reply]):
    """A reply that arrives although the task that awaits it is cancelled: the cancellation takes effect with the reply."""

    def cancel(self, msg: Any | None = None) -> bool:
        return False


class PlainSocketNeeded(Exception):
    """The server is reached by TLS or as a cluster, which this module does not speak: use threads."""


class Connection(asyncio.Protocol):
    """One open connection and the commands that wait for replies on it."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._wire = wire  # keeps redis-py's object, and with it the socket, alive
        self.loop = loop
        self._timeout = timeout
        self._reader = hiredis.Reader(replyError=ScriptError, notEnoughData=...)
        self._waiting: deque[tuple[int, asyncio.Future[Reply]]] = deque()
        self._ticks = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._is_due = False
        """Whether what is in `_out` is sent at the end of this turn."""
        self._lingering: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.closed = False

    def ask(
        self, payload: bytes, future: asyncio.Future[Reply] | None = None, *, linger: bool = False
    ) -> asyncio.Future[Reply]:
        """The reply to one packed command, errors as ScriptError objects. `linger`: it is not urgent."""
        if future is None:
            future = self.loop.create_future()
        self._waiting.append((self._ticks, future))
        self._out.append(payload)
        if not linger:
            if not self._is_due:
                self._is_due = True
                self.loop.call_soon(self._flush)
        elif self._lingering is None:
            self._lingering = self.loop.call_later(LINGER, self._end_lingering)
        self._out_size += len(payload)
        if self._out_size > _ENOUGH:
            self._flush()
        if self._watch is None:
            self._watch = self.loop.call_later(self._timeout / TICKS_PER_TIMEOUT, self._look)
        return future

    def _end_lingering(self) -> None:
        self._lingering = None
        self._flush()

    def _flush(self) -> None:
        self._is_due = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_size = 0

    def _look(self) -> None:
        """End the connection where the oldest command has waited too long.

        Time is counted in ticks of this loop, each of which has read what there was to read: where the loop itself was
        delayed, the server is not blamed for it.
        """
        self._watch = None
        self._ticks += 1
        if not self._waiting:
            return
        if self._ticks - self._waiting[0][0] > TICKS_PER_TIMEOUT:
            self.fail("no answer in time")
        else:
            self._watch = self.loop.call_later(self._timeout / TICKS_PER_TIMEOUT, self._look)

    def fail(self, why: str) -> None:
        """Close, and fail all pending questions."""
        self.closed = True
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(LimiterUnavailable(why))
        for timer in (self._watch, self._lingering):
            if timer is not None:
                timer.cancel()
        self._watch = self._lingering = None
        if self._transport is not None:
            self._transport.abort()
        self._wire.close()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No check of its class: other loops' transports, such as uvloop's, have the methods but not the base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        gets, waiting = self._reader.gets, self._waiting
        while True:
            try:
                reply = gets()
            except hiredis.ProtocolError as error:
                self.fail(str(error))
                return
            if reply is ...:
                return
            if isinstance(reply, hiredis.PushNotification):
                continue
            if not waiting:
                self.fail("an answer to no question")
                return
            _, future = waiting.popleft()
            if not future.done():  # its caller may have gone away
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.fail(str(exc) if exc else "the server closed the connection")


class Pipeline:
    """Scripts over one connection of an event loop, opened when it is needed. One loop per instance.

    `transport` has the server and the timeout, 100 ms if it has none.
    """

    def __init__(self, transport: Transport, in_thread: InThread) -> None:
        self._source = transport
        self._in_thread = in_thread
        self._timeout = transport.timeout or DEFAULT_TIMEOUT
        self._connection: Connection | None = None
        self._opening: asyncio.Future[Connection] | None = None

    @property
    def is_open(self) -> bool:
        """Whether `start` can send."""
        return self._connection is not None and not self._connection.closed

    def start(self, call: Call, *, linger: bool = False) -> KeptReply:
        """Send a script on the open connection; `linger`: its reply is not urgent. That is a ScriptError object where the
        server did not run it; a lost connection raises LimiterUnavailable."""
        connection = self._connection
        assert connection is not None
        reply = KeptReply(loop=connection.loop)
        connection.ask(call.payload(), reply, linger=linger)
        return reply

    async def run(self, call: Call) -> Reply:
        """Run one script, loading it where the server does not have it.

        Raises LimiterUnavailable, PlainSocketNeeded, and ScriptError for a mistake of ours.
        """
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._open()
        payload = call.payload()
        reply = await connection.ask(payload)
        if type(reply) is not ScriptError:
            return reply
        if library.not_found(str(reply)):
            await self._load(connection, call.script.library)
            reply = await connection.ask(payload)
            if type(reply) is not ScriptError:
                return reply
        message = str(reply)
        if is_unavailable(message) or message.startswith(("MOVED", "ASK")) or library.not_found(message):
            connection.fail(message)  # after a failover the address may mean another server
            raise LimiterUnavailable(message)
        raise reply

    @staticmethod
    async def _load(connection: Connection, wanted: Library) -> None:
        """Load a library and delete its surplus versions. A failure shows in the call that is repeated."""
        _, listed = await asyncio.gather(*[connection.ask(pack(command)) for command in library.commands(wanted)])
        for command in library.surplus(wanted, listed):
            connection.ask(pack(command))

    async def _open(self) -> Connection:
        """Open one at a time; calls that come meanwhile wait for the same one."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Future[Connection]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._connection = opening.result()

    async def send(self, commands: Sequence[bytes]) -> list[Reply]:
        """The replies to packed commands, in order. Raises as `run`."""
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._open()
        replies = await asyncio.gather(*[connection.ask(command) for command in commands])
        for reply in replies:
            if type(reply) is ScriptError:
                raise LimiterUnavailable(str(reply))
        return replies

    async def listen(self, key: bytes, seconds: float) -> bool:
        """Wait until something is pushed to a list, at most so long, on a connection of its own."""
        connection = await self._connect(seconds + GRACE)
        try:
            reply = await connection.ask(pack(("BLPOP", key, f"{seconds:.3f}")))
        finally:
            connection.fail("closed")
        if type(reply) is ScriptError:
            raise LimiterUnavailable(str(reply))
        return True

    async def _connect(self, timeout: float | None = None) -> Connection:
        if isinstance(self._source.redis, RedisCluster):
            raise PlainSocketNeeded
        # Names are resolved and passwords sent by redis-py, which blocks.
        try:
            wire: Wire = await self._in_thread(self._source.open)
        except (OSError, redis_py.RedisError) as error:
            raise LimiterUnavailable(str(error)) from error
        sock = wire.socket()
        if sock is None:
            wire.close()
            raise PlainSocketNeeded
        loop = asyncio.get_running_loop()
        connection = Connection(wire, loop, timeout or self._timeout)
        # The loop gets a descriptor of its own, so that redis-py's object and the loop each close theirs.
        own = sock.dup()
        own.setblocking(False)
        if own.family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: connection, sock=own)
        else:
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.create_connection(lambda: connection, sock=own)
        return connection

    def close(self) -> None:
        """End the connection; calls that still wait get LimiterUnavailable."""
        if self._connection is not None:
            self._connection.fail("closed")
            self._connection = None
        if self._opening is not None:
            self._opening.cancel()


async def check(limiter: Limiter, pipeline: Pipeline, request: CheckRequest) -> Decision:
    """`Limiter.check` over a pipeline. Raises what it raises, and PlainSocketNeeded."""
    prepared = limiter.prepare(request)
    if not prepared.limiting:
        return limiter.decode(prepared, b"")
    reply = await pipeline.run(prepared.call)
    if limiter.is_stale(reply):
        prepared = limiter.prepare(request)
        reply = await pipeline.run(prepared.call)
    return limiter.decode(prepared, reply)
