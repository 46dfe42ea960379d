"""The file that names child processes which keep dying, for readiness and doctor.

The file gets its full size when `up` begins and is written in place, so that a full disk can't keep it from changing.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

MAX_SIZE = 16_384
NAMED = 50
"""Children that the file names at most."""
FAILING_AFTER = 3
"""Deaths in a row from which on a child counts as one that keeps dying."""


@dataclass(frozen=True, slots=True)
class Failing:
    """A child that keeps dying."""

    name: str
    deaths: int
    """In a row, each after less than a minute of life."""
    status: int
    """Its last exit status, negative for a signal."""

    def __str__(self) -> str:
        how = f"signal {-self.status}" if self.status < 0 else f"status {self.status}"
        return f"{self.name} has died {self.deaths} times in a row (last with {how})"


class FailingFile:
    """The supervisor's side of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: list[Failing] | None = None
        self._file = -1

    def open(self) -> None:
        """Take the space that the file will ever need. Without it the file is not there, and nothing else fails."""
        with contextlib.suppress(OSError):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(self._file, 0, MAX_SIZE)
        self.write([])

    def write(self, failing: Iterable[Failing]) -> None:
        named = list(failing)[:NAMED]
        if self._file < 0 or named == self._written:
            return
        text = json.dumps({"supervisor": os.getpid(), "failing": [asdict(one) for one in named]})
        try:
            os.pwrite(self._file, text.encode().ljust(MAX_SIZE), 0)
            self._written = named
        except OSError:
            self._written = None  # written again with the next change or look

    def close(self) -> None:
        self.write([])
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read(path: Path) -> list[Failing]:
    """The children that keep dying; none if no `up` runs on this data directory."""
    for _ in range(3):
        try:
            content = json.loads(path.read_text())
            if not _alive(content["supervisor"]):
                return []
            return [Failing(**one) for one in content["failing"]]
        except OSError:
            return []
        except (ValueError, KeyError, TypeError):
            time.sleep(0.01)  # read while it was being written
    return []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
