"""The files of `queues` that one job passes through, from `POST /api/v1/jobs` to its end: `python -m tests.tools.walk`.

It runs on real parts: the REST view, SQL, Redis, the dispatcher, a worker's threads. A file counts if a function in it is
called between the request and the job's end.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "queues"


FUNCTION = 0x1
"""`CO_OPTIMIZED` of a code object: the body of a function, not of a module or a class, which run at their import."""


class Tracer:
    """Collects the files of the app whose functions are called. Threads must be started while it records."""

    def __init__(self, app: Path = APP) -> None:
        self._app = f"{app}/"
        self.files: dict[str, None] = {}
        """In the order of their first calls."""

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
        if event == "call" and code.co_flags & FUNCTION and code.co_filename.startswith(self._app):
            self.files.setdefault(str(Path(code.co_filename).relative_to(ROOT)))


def purpose(file: str) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "").partition("\n")[0]


def main() -> None:
    """Run the test that makes the walk, which prints it."""
    import pytest

    raise SystemExit(pytest.main(["-q", "-s", "-p", "no:cacheprovider", "tests/integration/queues/test_walk.py"]))


if __name__ == "__main__":
    main()
