"""`manage.py up`: everything on one machine, with nothing else installed."""

from __future__ import annotations

import http.client
import os
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from controlplane import processes
from controlplane.embedded_valkey import DataDirInUse, DataDirLock, EmbeddedValkey
from controlplane.instance import Instance
from controlplane.supervisor import ChildGivenUp, Stopped, Supervisor, SupervisorError

READY_SECONDS = 120.0
SIMULATOR_PORT = 9100


class Command(BaseCommand):
    help = "Run Sluice on this machine: embedded Valkey, SQLite, web server, dispatcher and workers."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: 127.0.0.1).")
        parser.add_argument("--port", type=int, default=8000, help="Port of REST, admin and metrics (default: 8000).")
        parser.add_argument("--data-dir", metavar="DIR", help="Where all data is kept (default: var/).")
        parser.add_argument("--workers", type=int, default=2, help="Workers for I/O jobs (default: 2).")
        parser.add_argument(
            "--concurrency",
            type=int,
            help="Jobs at once in each of these workers (default: SLUICE_CONCURRENCY, or 50).",
        )
        parser.add_argument("--demo", action="store_true", help="Add an upstream simulator, a configuration, traffic.")

    def handle(
        self, *args: Any, host: str, port: int, workers: int, concurrency: int | None, demo: bool, **options: Any
    ) -> None:
        if workers < 0:
            raise CommandError("--workers can't be negative.")
        if concurrency is not None and concurrency < 1:
            raise CommandError("--concurrency must be at least 1.")
        check_free(host, port)
        os.umask(0o077)
        instance: Instance = settings.INSTANCE
        try:
            with locked() as lock, supervised(instance) as supervisor:
                if settings.EMBEDDED_REDIS:
                    valkey = EmbeddedValkey(instance)
                    valkey.make_room()
                    supervisor.start(valkey.spec(lock))
                    supervisor.until(valkey.answers, READY_SECONDS, "the embedded Valkey does not answer")
                self._prepare(supervisor)
                supervisor.start(processes.web(host, port))
                supervisor.start(processes.dispatcher())
                for spec in processes.workers(workers, concurrency):
                    supervisor.start(spec)
                probe = "127.0.0.1" if host in ("0.0.0.0", "::") else host
                if demo:
                    provider = free_port(SIMULATOR_PORT)
                    supervisor.start(processes.simulator(provider))
                    supervisor.start(processes.traffic(provider, f"http://{probe}:{port}"))
                supervisor.until(lambda: is_ready(probe, port), READY_SECONDS, "/readyz is not green", every=0.2)
                if demo:
                    # A program that waits for the line `ready` uses the demo's project at once.
                    supervisor.until(demo_is_there, READY_SECONDS, "the demo's configuration is not there", every=0.2)
                supervisor.all_ready()
                put(sys.stdout, f"ready: http://{probe}:{port}\n")
                supervisor.forever()
        except Stopped:
            pass
        except ChildGivenUp as error:
            last = "\n".join(f"  {line}" for line in error.lines)
            raise CommandError(f"{error}. Its last lines:\n{last}") from None
        except (SupervisorError, DataDirInUse) as error:
            raise CommandError(str(error)) from None

    def _prepare(self, supervisor: Supervisor) -> None:
        """Run `prepare`; print the first credentials once, not into the logs."""
        path = settings.INSTANCE.credentials_path
        known = path.read_text() if path.exists() else ""
        supervisor.run(processes.prepare())
        made = path.read_text() if path.exists() else ""
        if made != known:
            put(sys.stdout, f"First credentials, kept in {path}:\n{made}")


@contextmanager
def locked() -> Iterator[DataDirLock]:
    """Lock this instance's data directory."""
    lock = DataDirLock(settings.INSTANCE.data_dir)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def supervised(instance: Instance) -> Supervisor:
    """The supervisor of this instance's processes."""
    return Supervisor(instance.log_dir, instance.pid_dir, say, instance.failing_path)


def demo_is_there() -> bool:
    """Whether the demo's configuration has been applied."""
    from quotas.models import Project

    close_old_connections()
    return Project.objects.filter(slug="demo").exists()


def say(name: str, line: str) -> None:
    """Pass on a child's line to standard error; the log files have their own copy."""
    put(sys.stderr, f"{name} | {line}\n")


def put(stream: TextIO, text: str) -> None:
    """Write without Python's buffer, which would keep text that can't be written (closed, a full disk) and fail with
    each later line. Such text is dropped."""
    with suppress(OSError):
        os.write(stream.fileno(), text.encode("utf-8", "replace"))


def check_free(host: str, port: int) -> None:
    """A busy port is an error before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} of {host} can't be used ({error.strerror}): choose another --port."
            ) from None


def free_port(wished: int) -> int:
    """`wished` if it is free, else another free port."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wished))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(host: str, port: int) -> bool:
    """True when `/readyz` answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/readyz", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):  # not listening yet
        return False
    finally:
        connection.close()
