"""What a child says: passed on line by line, kept in a file of bounded size, the last lines at hand."""

from __future__ import annotations

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
        self._file = self._open()

    def _open(self) -> int:
        # No buffer of ours: what was written survives our own sudden end.
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

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
        """The child is gone: its unfinished line is a line too."""
        if self._rest:
            self._keep(self._rest)
            self._rest = b""

    def close(self) -> None:
        self.flush()
        os.close(self._file)

    def _keep(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.tail.append(text)
        os.write(self._file, line + b"\n")
        if os.fstat(self._file).st_size >= self._max_bytes:
            os.close(self._file)
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self._open()
        self._pass_on(text)
