"""A real `manage.py up`, seen from outside: over HTTP, by signals, through the command line."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from tests.support.migrated import SQLITE, copy_sqlite
from tests.support.servers import SEPARATELY, separate_servers
from tests.support.valkey import free_port

BASE_DIR = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0


class Instance:
    """Start, look at, hurt and stop one instance. Its data directory outlives `stop` and `kill`: start it again."""

    def __init__(self, *options: str, environ: Mapping[str, str] | None = None) -> None:
        self.data_dir = Path(tempfile.mkdtemp(prefix="sluice-up-", dir="/tmp"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.options = options
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._known: dict[int, str] = {}
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        for name in ("DATABASE_URL", "REDIS_URL", "LIMITER_REDIS_URL", "DJANGO_SETTINGS_MODULE"):
            ours.pop(name, None)
        self.environ = {**ours, "SLUICE_DATA_DIR": str(self.data_dir), **(environ or {})}

    # Its life

    def spawn(self) -> None:
        """`manage.py up`, without waiting for anything."""
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(self.port), *self.options],
            cwd=BASE_DIR,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def start(self) -> Instance:
        """`manage.py up`, until it says that it is ready."""
        self.spawn()
        wait_until(lambda: self.is_ready() or self._ended(), START_SECONDS, lambda: f"not ready:\n{self.output}")
        assert self.is_ready(), f"up ended with {self.process and self.process.returncode}:\n{self.output}"
        return self

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        lines = self.lines
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
        process.stdout.close()

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def is_ready(self) -> bool:
        return f"ready: {self.url}" in self.lines

    @property
    def output(self) -> str:
        return "\n".join(self.lines[-80:])

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Terminate it; its exit status."""
        assert self.process is not None
        self.family()
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """`kill -9` of the parent."""
        assert self.process is not None
        self.family()
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        """End whatever runs and forget its data."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.data_dir, ignore_errors=True)

    # Its processes

    def family(self) -> dict[int, str]:
        """All living processes of this instance, the parent included: {pid: command line}.

        What once belonged to it stays known, so that an orphan is found under whatever title it runs.
        """
        table = process_table()
        own = os.fsencode(f"SLUICE_DATA_DIR={self.data_dir}")
        members = {row.pid for row in table.values() if own in row.environ or str(self.data_dir) in row.command}
        members |= {pid for pid, started in self._known.items() if pid in table and table[pid].started == started}
        if self.process is not None and self.process.pid in table:
            members.add(self.process.pid)
        grown = True
        while grown:
            children = {row.pid for row in table.values() if row.parent in members} - members
            members |= children
            grown = bool(children)
        members -= {os.getpid()}
        self._known |= {pid: table[pid].started for pid in members}
        return {pid: table[pid].command for pid in sorted(members)}

    def pids(self, name: str) -> list[int]:
        """Living children of `up` whose names begin so: `valkey`, `web`, `dispatcher`, `worker-io`, `worker-cpu`."""
        table = process_table()
        found = []
        for path in sorted((self.data_dir / "pids").glob(f"{name}*")):
            try:
                pid = int(path.read_text() or 0)
            except FileNotFoundError:
                continue
            if pid in table:
                found.append(pid)
        return found

    def kill_child(self, name: str, which: int = 0) -> int:
        """`kill -9` of one process; its id."""
        pid = self.pids(name)[which]
        os.kill(pid, signal.SIGKILL)
        return pid

    def no_survivors(self, seconds: float = 10.0) -> None:
        """Fails if a process is still there after `seconds`."""
        wait_until(lambda: not self.family(), seconds, lambda: f"still there: {self.family()}")

    # Its faces

    @property
    def credentials(self) -> dict[str, str]:
        """`admin_username`, `admin_password`, `platform_key`."""
        lines = (self.data_dir / "credentials.txt").read_text().splitlines()
        return dict(line.split(": ", 1) for line in lines)

    def client(self, key: str | None = None) -> httpx.Client:
        """An HTTP client with the platform's key, or another one; with `""` without any."""
        key = self.credentials["platform_key"] if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0)

    def readyz(self) -> httpx.Response:
        return httpx.get(f"{self.url}/readyz", timeout=10.0)

    def is_serving(self) -> bool:
        """Whether its web process answers that all its parts are ready."""
        try:
            return self.readyz().status_code == 200
        except httpx.TransportError:
            return False

    def manage(self, *words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of the project's commands on this instance."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=BASE_DIR,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Straight from SQL, with `?` for values: what no face can gloss over."""
        if url := self.environ.get("DATABASE_URL"):
            with psycopg.connect(url, options="-c TimeZone=UTC") as connection:
                return connection.execute(query.replace("?", "%s"), values).fetchall()  # type: ignore[arg-type]
        with sqlite3.connect(self.data_dir / "sluice.sqlite3", timeout=30) as connection:
            return connection.execute(query, values).fetchall()

    def execute(self, statement: str, *values: Any) -> None:
        """Change SQL behind the product's back, with `?` for values."""
        if url := self.environ.get("DATABASE_URL"):
            with psycopg.connect(url, options="-c TimeZone=UTC") as connection:
                connection.execute(statement.replace("?", "%s"), values)  # type: ignore[arg-type]
        else:
            with sqlite3.connect(self.data_dir / "sluice.sqlite3", timeout=30) as connection:
                connection.execute(statement, values)

    def redis(self) -> redis.Redis:
        url = self.environ.get("REDIS_URL") or f"unix://{self.data_dir}/valkey.sock"
        return redis.Redis.from_url(url)

    @property
    def redis_pid(self) -> int:
        with self.redis() as client:
            return int(client.info("server")["process_id"])

    def flushall(self) -> None:
        with self.redis() as client:
            client.flushall()


@dataclass(frozen=True)
class Process:
    """A row of the system's table of processes. Together, `pid` and `started` are unique."""

    pid: int
    parent: int
    started: str
    command: str
    environ: frozenset[bytes]


def process_table() -> dict[int, Process]:
    """All that live, zombies left out; Linux only."""
    table = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            environ = frozenset((entry / "environ").read_bytes().split(b"\0"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if stat[0] != "Z":
            table[int(entry.name)] = Process(int(entry.name), int(stat[1]), stat[19], command, environ)
    return table


def wait_until(condition: Callable[[], object], seconds: float = 30.0, what: Callable[[], str] | str = "") -> None:
    """Look every 50 ms, after a long wait four times a second; fails after `seconds` with what was waited for."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        if waited > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(min(max(0.05, waited / 20), 0.25))


@contextmanager
def running(*options: str, environ: Mapping[str, str] | None = None, migrated: bool = False) -> Iterator[Instance]:
    """A started instance; whatever is left of it at the end is removed. `migrated`: its SQL has its tables already,
    which saves the seconds of the migrations."""
    with ExitStack() as stack:
        given = dict(environ or {})
        if SEPARATELY and "DATABASE_URL" not in given:
            postgres, server = stack.enter_context(separate_servers(migrated=migrated))
            given |= {"DATABASE_URL": postgres.url, "REDIS_URL": server.url}
        instance = Instance(*options, environ=given)
        stack.callback(instance.remove)
        if migrated and "DATABASE_URL" not in given:
            copy_sqlite(instance.data_dir / SQLITE)
        yield instance.start()
