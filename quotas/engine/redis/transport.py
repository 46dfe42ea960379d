"""The connection to the server: scripts over pooled sockets, with as little overhead as possible.

redis-py opens, authenticates and selects; from there on this module packs with hiredis, writes and reads the socket
itself (redis-py's own path costs as much as a whole check). It never repeats what the server may have run: not after
a timeout, not after a lost connection. "Function not found", MOVED and LOADING answers mean that nothing was run; the
first is answered by loading the library, MOVED by sending to the cluster again, once.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
import redis as redis_py
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import ConnectionPool
from redis.retry import Retry

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis import library
from quotas.engine.redis.library import Library
from quotas.engine.redis.scripts import Argument, Call, Key, Script, pack

Reply = Any
UNAVAILABLE = (
    "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "OOM", "MISCONF", "BUSY ", "NOREPLICAS", "NOQUORUM",
    "NOAUTH", "WRONGPASS", "NOPERM", "ERR max number of clients",
)  # fmt: skip
"""How the answers of a server begin that does not serve now: starting, full, a replica, locked. As good as none: the
command was not executed, and the next try may be answered."""


class ScriptError(Exception):
    """The server refused a command or a script failed: a mistake of ours, not a state of affairs."""


class Wire:
    """One open connection: bytes out, replies in."""

    __slots__ = ("_gets", "_poll", "_reader", "_sock", "connection")

    def __init__(self, connection: Any) -> None:
        connection.connect()
        self.connection = connection
        self._sock: socket.socket = connection._sock
        seconds = self._sock.gettimeout()
        if seconds and type(self._sock) is socket.socket:
            # The kernel keeps the time: Python would poll before each send and each read.
            limit = struct.pack("@ll", int(seconds), max(int(seconds % 1 * 1e6), 1))
            self._sock.settimeout(None)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._reader = hiredis.Reader(replyError=ScriptError, notEnoughData=...)
        self._gets = self._reader.gets
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    def stale(self) -> bool:
        """Between commands nothing is to be read: if there is, the server hung up (or is out of step)."""
        return bool(self._poll.poll(0))

    def exchange(self, payload: bytes, count: int) -> list[Reply]:
        self._sock.sendall(payload)
        gets = self._gets
        replies: list[Reply] = []
        while True:
            reply = gets()
            if reply is ...:
                data = self._sock.recv(65536)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                self._reader.feed(data)
            elif not isinstance(reply, hiredis.PushNotification):
                replies.append(reply)
                if len(replies) == count:
                    return replies

    def close(self) -> None:
        self.connection.disconnect()

    def socket(self) -> socket.socket | None:
        """The open socket, for who reads and writes it himself; None where it is not a plain one (TLS)."""
        return self._sock if type(self._sock) is socket.socket else None


class Transport:
    """Runs scripts and commands on the server of a redis-py client (plain, Sentinel, unix socket, TLS or cluster).

    `timeout`: seconds for connecting and for each answer; None keeps the client's own. `tag`: the hash tag that all
    keys have, which names the node in a cluster. Threads may share a transport; a forked child begins anew.
    """

    def __init__(self, redis: redis_py.Redis | RedisCluster, *, tag: str = "{sl}", timeout: float | None = None):
        self.redis = redis
        self.tag = tag
        self.timeout = timeout
        self._idle: deque[Wire] = deque()
        self._pid = os.getpid()
        _living.add(self)

    # -- connections ---------------------------------------------------------------------------------------------

    def _pool(self) -> ConnectionPool:
        if isinstance(self.redis, RedisCluster):
            node = self.redis.get_node_from_key(self.tag)  # type: ignore[no-untyped-call]
            if node is None:
                raise redis_py.ConnectionError("no node of the cluster has the limiter's slot")
            return self.redis.get_redis_connection(node).connection_pool
        return self.redis.connection_pool

    def open(self, timeout: float | None = None) -> Wire:
        """A new connection that is its caller's own, perhaps with another timeout. Raises OSError and RedisError."""
        pool = self._pool()
        kwargs = dict(pool.connection_kwargs)
        kwargs |= {"retry": Retry(NoBackoff(), 0), "retry_on_timeout": False, "health_check_interval": 0}
        kwargs.pop("retry_on_error", None)
        if self.timeout is not None:
            kwargs |= {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}
        if timeout is not None:
            kwargs["socket_timeout"] = timeout
        return Wire(pool.connection_class(**kwargs))

    def _take(self) -> Wire:
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return self.open()
            if not wire.stale():
                return wire
            wire.close()

    def close(self) -> None:
        """Close all idle connections; the next call opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def _forget(self) -> None:
        self._idle = deque()

    # -- exchanges -----------------------------------------------------------------------------------------------

    def exchange(self, payload: bytes, count: int = 1) -> list[Reply]:
        """Send packed commands, return their replies (errors as ScriptError objects).

        Raises LimiterUnavailable when the server can't be reached or does not answer in time; whether the commands
        were run is then unknown.
        """
        try:
            wire = self._take()
        except (OSError, redis_py.RedisError) as error:
            raise LimiterUnavailable(str(error)) from error
        try:
            replies = wire.exchange(payload, count)
        except BlockingIOError as error:
            wire.close()
            raise LimiterUnavailable("no answer in time") from error
        except OSError as error:
            wire.close()
            raise LimiterUnavailable(str(error) or type(error).__name__) from error
        except BaseException:
            wire.close()
            raise
        self._idle.append(wire)
        return replies

    def command(self, *args: Argument) -> Reply:
        """Run one command and return its reply."""
        return self._checked(self._settled([pack(args)], [None]))[0]

    def run(self, script: Script, keys: Sequence[Key], args: Sequence[Argument] = ()) -> Reply:
        """Run one script, loading it if the server does not have it."""
        return self.send(Call(script, keys, args))

    def send(self, call: Call) -> Reply:
        """Run one script, loading it if the server does not have it."""
        payload = call.payload()
        reply = self.exchange(payload)[0]
        if type(reply) is ScriptError:
            return self._checked(self._settled([payload], [call.script], [reply]))[0]
        return reply

    def run_many(self, calls: Iterable[Call]) -> list[Reply]:
        """Run many scripts in one pipeline, each atomic by itself; replies in order.

        Those that the server did not know are loaded and run again, and only those. Raises at the first reply that is
        an error.
        """
        payloads, scripts = [], []
        for call in calls:
            payloads.append(call.payload())
            scripts.append(call.script)
        return self._checked(self._settled(payloads, scripts)) if payloads else []

    def _settled(
        self, payloads: list[bytes], scripts: Sequence[Script | None], replies: list[Reply] | None = None
    ) -> list[Reply]:
        """The replies, after what was not run for a known reason has been run once more."""
        if replies is None:
            replies = self.exchange(b"".join(payloads), len(payloads))
        again = [i for i, reply in enumerate(replies) if type(reply) is ScriptError and _not_run(str(reply))]
        if not again:
            return replies
        if any(str(replies[i]).startswith(("MOVED", "ASK")) for i in again) and isinstance(self.redis, RedisCluster):
            self.close()
            self.redis.nodes_manager.initialize()
        libraries = {script.library for i in again if (script := scripts[i]) is not None}
        first = [pack(command) for library in libraries for command in self._load(library)]
        fresh = self.exchange(b"".join([*first, *(payloads[i] for i in again)]), len(first) + len(again))
        # Whether a version that is too many could be deleted is no concern of this call.
        for i, reply in zip(again, fresh[len(first) :], strict=True):
            replies[i] = reply
        return replies

    def _load(self, wanted: Library) -> list[tuple[str, ...]]:
        """Load a library; returns the commands that delete its surplus versions."""
        loaded, listed = self.exchange(b"".join(map(pack, library.commands(wanted))), 2)
        if type(loaded) is ScriptError and not library.already_loaded(str(loaded)):
            self._checked([loaded])
        return library.surplus(wanted, listed)

    def _checked(self, replies: list[Reply]) -> list[Reply]:
        for reply in replies:
            if type(reply) is ScriptError:
                message = str(reply)
                if is_unavailable(message) or _not_run(message):
                    self.close()
                    raise LimiterUnavailable(message)
                raise reply
        return replies


def is_unavailable(message: str) -> bool:
    """Whether an error is the server's state and no mistake of ours."""
    return message.startswith(UNAVAILABLE)


def _not_run(message: str) -> bool:
    return library.not_found(message) or message.startswith(("MOVED", "ASK"))


_living: weakref.WeakSet[Transport] = weakref.WeakSet()


def _after_fork() -> None:
    for transport in _living:
        transport._forget()


os.register_at_fork(after_in_child=_after_fork)
