"""The files of `queues` that one job passes through, from `POST /api/v1/jobs` to its end: `python -m tests.tools.walk`.

It runs on real parts: the REST view, SQL, Redis, the dispatcher, a worker's threads. A file counts if, for the job, another
file calls a function in it. What also happens without any job is measured first and left out. A call back into a file that
waits for it leads to no other file.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "queues"


FUNCTION = 0x1
"""`CO_OPTIMIZED` of a code object: the body of a function, not of a module or a class, which run at their import."""


Step = tuple[str, str, str]
"""A call from one file of the app into another one: caller, callee, and the function's name."""


class Tracer:
    """Collects the calls between files of the app. Threads must be started while it records."""

    def __init__(self, app: Path = APP) -> None:
        self._app = f"{app}/"
        self.steps: dict[Step, None] = {}
        """In the order of their first calls; the caller is empty where a thread or a library calls."""

    @contextmanager
    def recording(self) -> Iterator[Tracer]:
        threading.setprofile(self._call)
        sys.setprofile(self._call)
        try:
            yield self
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _call(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_flags & FUNCTION or not code.co_filename.startswith(self._app):
            return
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(self._app):
            back = back.f_back
        caller = back.f_code.co_filename if back is not None else ""
        if caller == code.co_filename or _calls_back(back, code.co_filename):
            return
        self.steps.setdefault((_short(caller), _short(code.co_filename), code.co_qualname))


def _calls_back(frame: FrameType | None, file: str) -> bool:
    """Whether `frame` was called from `file`, directly or not: it calls what it was given there, and leads to no other
    file."""
    while frame is not None:
        if frame.f_code.co_filename == file:
            return True
        frame = frame.f_back
    return False


def _short(file: str) -> str:
    return str(Path(file).relative_to(ROOT)) if file else ""


@dataclass(frozen=True, slots=True)
class Walk:
    """The files that a job passes through."""

    stations: list[str]
    """Those that call others: who follows a job reads them one after the other."""
    leaves: list[str]
    """Those that call no other file: rows, value objects, errors, statements."""

    @classmethod
    def of(cls, steps: Iterable[Step], idle: Iterable[Step]) -> Walk:
        """From the calls of a job, without those that happen without any job (leadership, recovery, heartbeats)."""
        known = set(idle)
        new = [step for step in steps if step not in known]
        callers = {caller for caller, _, _ in new}
        files = list(dict.fromkeys(file for caller, callee, _ in new for file in (caller, callee) if file))
        return cls([file for file in files if file in callers], [file for file in files if file not in callers])


def purpose(file: str) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "").partition("\n")[0]


def main() -> None:
    """Run the test that makes the walk, which prints it."""
    import pytest

    raise SystemExit(pytest.main(["-q", "-s", "-p", "no:cacheprovider", "tests/integration/queues/test_walk.py"]))


if __name__ == "__main__":
    main()
