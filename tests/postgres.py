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
from tests.valkey import free_port, wait_for


def postgres_binaries() -> Path | None:
    """The directory that holds `initdb` and `postgres`: the newest of Debian's, else what is on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).parent if found else None


def _as_whom() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as Debian's own user for it."""
    if os.getuid():
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def run_postgres(*settings: str) -> Iterator[str]:
    """Yields a `DATABASE_URL`. `settings` are `name=value` for the server."""
    binaries = postgres_binaries()
    assert binaries is not None, "no PostgreSQL is installed"
    whom = _as_whom()
    directory = tempfile.mkdtemp(prefix="sl-pg-", dir="/tmp")
    if whom:
        os.chown(directory, whom["user"], whom["group"])
    data = f"{directory}/data"
    common: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": directory, "env": {"PATH": os.defpath}, **whom}
    subprocess.run(
        [str(binaries / "initdb"), "-D", data, "-U", "sluice", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        **common,
    )
    port = free_port()
    options = [
        "listen_addresses=127.0.0.1",
        f"port={port}",
        f"unix_socket_directories={directory}",
        "fsync=off",
        *settings,
    ]
    with open(f"{directory}/log", "wb") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", data, *(word for option in options for word in ("-c", option))],
            stdout=log,
            stderr=log,
            preexec_fn=parent_death.in_child(),
            **common,
        )
    url = f"postgresql://sluice@127.0.0.1:{port}/postgres"
    try:
        wait_for(lambda: _answers(url), timeout=30)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown: sessions are ended
        server.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


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
