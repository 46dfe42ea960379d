"""Writes the trace points of a process into a file; imported by the instance, so that it imports little itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

from queues import hops

DIRECTORY = "BENCH_HOPS"


def log_hops() -> None:
    """In a process of the instance: write each point that it passes, with its time, if the bench requests it."""
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return
    files: dict[int, int] = {}

    def write(name: str) -> None:
        moment, pid = time.monotonic_ns(), os.getpid()
        if pid not in files:
            files[pid] = os.open(f"{directory}/{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(files[pid], f"{moment} {name}\n".encode())

    hops.observer = write


def read_hops(directory: Path) -> list[tuple[int, str]]:
    """All points that were written, with their times in nanoseconds of the system's monotonic clock, in order."""
    lines = [line for path in directory.iterdir() for line in path.read_text().splitlines()]
    return sorted((int(moment), name) for moment, _, name in (line.partition(" ") for line in lines))
