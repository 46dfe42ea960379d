"""A primary, its replica and a Sentinel that watches them, in processes of their own."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from controlplane import parent_death
from tests.support.valkey import Server, free_port, run_server, valkey_binary, wait_for

NAME = "sluice"


@dataclass
class Trio:
    primary: Server
    replica: Server
    port: int
    """The Sentinel's."""

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/{NAME}"

    def address(self) -> int:
        """The port of whom Sentinel names as the primary now."""
        with redis.Redis(port=self.port) as sentinel:
            return int(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])


@contextmanager
def run_trio() -> Iterator[Trio]:
    """Yields when the replica has caught up and Sentinel knows of it."""
    with ExitStack() as stack:
        quick = ("--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0")
        primary = stack.enter_context(run_server(valkey_binary(), *quick))
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = stack.enter_context(run_server(valkey_binary(), *quick, *follow))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sl-sentinel-", dir="/tmp")))
        port = free_port()
        (directory / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 500\n"
            f"sentinel failover-timeout {NAME} 5000\n"
        )
        process = subprocess.Popen(
            [valkey_binary(), str(directory / "sentinel.conf"), "--sentinel"],
            stdout=subprocess.DEVNULL,
            preexec_fn=parent_death.in_child(),
        )
        try:
            wait_for(lambda: _knows(port) and _is_linked(replica), 30)
            yield Trio(primary, replica, port)
        finally:
            process.kill()
            process.wait()


def _knows(port: int) -> bool:
    try:
        with redis.Redis(port=port) as sentinel:
            return bool(sentinel.sentinel_slaves(NAME))
    except redis.RedisError:
        return False


def _is_linked(replica: Server) -> bool:
    with replica.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")
