"""A private PostgreSQL cluster on a port of its own, in a temporary directory, gone with who started it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from controlplane import parent_death
from tests.support.made_once import made_once
from tests.support.valkey import free_port, wait_for


def postgres_binaries() -> Path | None:
    """The directory of `initdb` and `postgres`: the newest of Debian's, else what is on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).parent if found else None


def _as_whom() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as Debian's own user for it."""
    if os.getuid():
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Cluster:
    """A cluster that can be stopped and started again, as in an outage. `url` stays the same.

    `copy_of`: the directory of a stopped cluster whose data this one begins with, else it begins empty.
    """

    def __init__(self, directory: str, *settings: str, copy_of: Path | None = None) -> None:
        self.binaries = postgres_binaries()
        assert self.binaries is not None, "no PostgreSQL is installed"
        whom = _as_whom()
        self.directory = directory
        if whom:
            os.chown(directory, whom["user"], whom["group"])
        self._common: dict[str, Any] = {
            "stdin": subprocess.DEVNULL, "cwd": directory, "env": {"PATH": os.defpath}, **whom,
        }  # fmt: skip
        if not os.path.exists(f"{directory}/data"):
            self._copy(copy_of or made_once("empty-postgres", self._create))
        self.port = free_port()
        self.url = f"postgresql://sluice@127.0.0.1:{self.port}/postgres"
        self._options = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={directory}",
            "fsync=off",
            *settings,
        ]
        self._server: subprocess.Popen[bytes] | None = None

    def _copy(self, other: Path) -> None:
        subprocess.run(["cp", "-a", str(other / "data"), self.directory], check=True)

    def _create(self, directory: Path) -> None:
        if "user" in self._common:
            os.chown(directory, self._common["user"], self._common["group"])
        subprocess.run(
            [str(self.binaries / "initdb"), "-D", f"{directory}/data", "-U", "sluice", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, **(self._common | {"cwd": directory}),
        )  # fmt: skip

    def start(self) -> None:
        options = [word for option in self._options for word in ("-c", option)]
        with open(f"{self.directory}/log", "ab") as log:
            self._server = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", f"{self.directory}/data", *options],  # type: ignore[operator]
                stdout=log,
                stderr=log,
                preexec_fn=parent_death.in_child(),
                **self._common,
            )
        wait_for(lambda: _answers(self.url), timeout=30)

    def stop(self) -> None:
        """A fast shutdown: sessions are ended."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(20)
            self._server = None


@contextmanager
def run_cluster(*settings: str, copy_of: Path | None = None) -> Iterator[Cluster]:
    """A running cluster. `settings` are `name=value` for the server."""
    directory = tempfile.mkdtemp(prefix="sl-pg-", dir="/tmp")
    cluster: Cluster | None = None
    try:
        cluster = Cluster(directory, *settings, copy_of=copy_of)
        cluster.start()
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def run_postgres(*settings: str) -> Iterator[str]:
    """Yields a `DATABASE_URL`. `settings` are `name=value` for the server."""
    with run_cluster(*settings) as cluster:
        yield cluster.url


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def url_of(database: dict[str, Any]) -> str:
    """The `DATABASE_URL` by which another process reaches a test's database, SQLite's too."""
    if database["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{database['NAME']}"
    return f"postgresql://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
