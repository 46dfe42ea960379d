"""Whether the system lets this process run as many jobs at once as it is to run: open files, threads, address space.

Each call that waits has an open connection, and a job that is not `async` a thread. A worker that lacks either would
return jobs in the middle of its work, so that it says so at its start.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

OWN_FILES = 64
"""Open files besides those of jobs: SQL, Redis, logs, event loops."""
OWN_THREADS = 32
"""Threads besides those of jobs: heartbeat, deadlines, completer, RQ's commands."""
MAPPINGS_PER_THREAD = 2
"""Memory mappings of a thread: its stack and the guard below."""
DEFAULT_STACK = 8 << 20
"""Bytes of a thread's stack where the system sets no limit, at most."""
OWN_MEMORY = 512 << 20
"""Bytes of address space besides the stacks."""


class TooFewResources(Exception):
    """The process can't run so many jobs at once. The message says what is lacking, and what to do."""


def prepare(places: int) -> None:
    """Allow as many open files as `places` jobs need, where the system permits it. Raises `TooFewResources`."""
    _check_threads(places)
    _prepare_files(places)


def _check_threads(places: int) -> None:
    needed = places + OWN_THREADS
    for allowed, where in _thread_limits():
        if needed > allowed:
            raise TooFewResources(
                f"{places:,} jobs at once need {needed:,} threads; {where} allows {max(allowed, 0):,}."
                f" Raise this limit, or lower SLUICE_CONCURRENCY (`--concurrency`)."
            )
    space = _soft(resource.RLIMIT_AS)
    stacks = places * (threading.stack_size() or min(_soft(resource.RLIMIT_STACK) or DEFAULT_STACK, DEFAULT_STACK))
    if space is not None and stacks + OWN_MEMORY > space:
        raise TooFewResources(
            f"{places:,} jobs at once need {stacks + OWN_MEMORY:,} bytes of address space for the stacks of their threads;"
            f" the process may use {space:,}. Raise the limit (`ulimit -v`), make stacks smaller (`ulimit -s`), or lower"
            f" SLUICE_CONCURRENCY (`--concurrency`)."
        )


def _prepare_files(places: int) -> None:
    """A job may need two: the connection of its call, and one to SQL where a task of the user's reads rows."""
    needed, wanted = places + OWN_FILES, 2 * places + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise TooFewResources(
            f"{places:,} jobs at once need {needed:,} open files; the process may have {soft:,}. Raise the limit"
            f" (`ulimit -n`, `LimitNOFILE=` of systemd, `ulimits: nofile` of Compose), or lower SLUICE_CONCURRENCY"
            f" (`--concurrency`)."
        )


def _soft(which: int) -> int | None:
    """A soft limit; None: there is none."""
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _thread_limits() -> Iterator[tuple[int, str]]:
    """How many threads there may be, and what says so."""
    processes = _soft(resource.RLIMIT_NPROC)
    if processes is not None and os.geteuid() != 0:
        yield processes, "the user's limit of processes (`ulimit -u`, `LimitNPROC=` of systemd)"
    for name, divisor in (("kernel/threads-max", 1), ("vm/max_map_count", MAPPINGS_PER_THREAD)):
        if (value := _number(Path("/proc/sys") / name)) is not None:
            yield value // divisor, f"the kernel's setting {name.replace('/', '.')}"
    for group in _task_groups():
        most, present = _number(group / "pids.max"), _number(group / "pids.current")
        if most is not None and present is not None:
            yield most - present, "the control group (`TasksMax=` of systemd, `pids_limit` of Compose)"


def _task_groups() -> Iterator[Path]:
    """Directories of the control group that may limit the number of tasks; version 2 and version 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            yield Path("/sys/fs/cgroup") / controllers / path.lstrip("/")


def _number(path: Path) -> int | None:
    """The number in a file; None if there is no such file, or it says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
