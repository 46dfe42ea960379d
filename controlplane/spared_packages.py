"""Packages that other packages import where they are installed, and that our processes do not use: a sixth of the web process's
memory, 4 MiB of any other.

    psycopg         by unfold, for fields that only PostgreSQL has
    requests        by Django REST framework and redis-py, for a test client and for OCSP
    markdown        by Django REST framework, for its browsable pages
    pygments, rich  by Django REST framework and structlog, for colours in a terminal
    opentelemetry   by redis-py, for its own metrics

The command line loads structlog and redis-py without theirs, before anything of a user's is loaded. The web process goes further:
OpenTelemetry sends traces by requests: both stay where traces are on. All of them stay where task modules are loaded.
Each of them is imported behind `except ImportError`. They are absent while Django starts, and can be imported afterwards: a
message that is sent by requests, or a page that colours JSON, imports them then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_COLOURS = ("pygments", "rich")
_ALWAYS = ("markdown", *_COLOURS)
_TRACING = ("opentelemetry", "requests")
_POSTGRESQL = ("psycopg", "django.contrib.postgres.fields", "django.contrib.postgres.search")


def spared(*, is_postgresql: bool, is_traced: bool, has_tasks: bool) -> tuple[str, ...]:
    """What the process does not use, by its settings. `has_tasks`: it loads modules of its users, which may import anything."""
    if has_tasks:
        return ()
    return (*_ALWAYS, *(() if is_postgresql else _POSTGRESQL), *(() if is_traced else _TRACING))


def load_libraries() -> None:
    """Load the libraries that every process uses, without what they import for extras."""
    with absent((*_COLOURS, "opentelemetry")):
        import redis  # noqa: F401
        import structlog.dev  # noqa: F401


@contextmanager
def absent(names: Sequence[str]) -> Iterator[None]:
    """Within the block, importing one of these packages raises `ModuleNotFoundError`; those that are imported already stay.

    https://docs.python.org/3/reference/import.html#the-module-cache
    """
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
