"""A directory for all processes of one test run, and what is made in it once: by the first process that needs it."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

VARIABLE = "SLUICE_TEST_RUN"


@contextmanager
def run_directory() -> Iterator[None]:
    """The processes that this one starts find the directory in their environment. The process that made it removes it."""
    if VARIABLE in os.environ:
        yield
        return
    made = tempfile.mkdtemp(prefix="sluice-run-", dir="/tmp")
    os.chmod(made, 0o711)  # PostgreSQL runs as another user
    os.environ[VARIABLE] = made
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        shutil.rmtree(made, ignore_errors=True)


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` of this run. `make` fills it, in one process, while the others wait.

    Where nobody has made the run's directory, as in benches, it is this process's and removed at its exit.
    """
    if VARIABLE not in os.environ:
        closing = ExitStack()
        closing.enter_context(run_directory())
        atexit.register(closing.close)
    run = Path(os.environ[VARIABLE])
    place = run / name
    with open(run / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run))
            make(unfinished)
            unfinished.rename(place)
    return place
