"""A small disk of the test's own, to be filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(directory: Path, *, megabytes: int) -> Iterator[Path]:
    """A tmpfs of that size, mounted there; the test is skipped where none can be mounted."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


def fill(ballast: Path, *, leave: int = 0) -> None:
    """Take all the room of the file's disk, but for about `leave` bytes."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize > leave:
                    file.write(b"\0" * size)
            except OSError:
                continue
