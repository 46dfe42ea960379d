"""The output of a child process: passed on line by line, kept in a file of bounded size, the last lines in memory.

A line that can't be written (the disk is full) is counted and left out of the file; it is still passed on.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 5_000_000
MAX_LINE = 16_384
TAIL = 30


class ChildLog:
    """Takes raw output. `pass_on` gets whole lines without their end; the file is turned over at `max_bytes`, once."""

    def __init__(self, path: Path, pass_on: Callable[[str], None], max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._pass_on = pass_on
        self._max_bytes = max_bytes
        self._rest = b""
        self._file = -1
        self.lost = 0
        """Lines that could not be written since the last one that could."""

    def _open(self) -> None:
        # No buffer of ours: what was written survives our own sudden end.
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def feed(self, data: bytes) -> None:
        """Take what was read from the child's pipe; the unfinished last line waits for its end."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._keep(line)

    def flush(self) -> None:
        """The child has ended: its unfinished line is a line too."""
        if self._rest:
            self._keep(self._rest)
            self._rest = b""

    def close(self) -> None:
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _keep(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.tail.append(text)
        try:
            self._write(line)
        except OSError:
            self.lost += 1
        self._pass_on(text)

    def _write(self, line: bytes) -> None:
        if self._file < 0:
            self._open()
        if self.lost:
            self._append(b"(%d lines could not be written here)\n" % self.lost)
            self.lost = 0
        self._append(line + b"\n")
        if os.fstat(self._file).st_size >= self._max_bytes:
            os.close(self._file)
            self._file = -1
            self.path.replace(self.path.with_name(self.path.name + ".1"))

    def _append(self, data: bytes) -> None:
        """All of it or nothing: a full disk takes a part of a line."""
        size = os.fstat(self._file).st_size
        if os.write(self._file, data) < len(data):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, size)
            raise OSError("the disk is full")
