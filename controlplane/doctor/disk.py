"""The disk of the data directory: SQLite, the embedded Valkey's log and the log files grow on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from django.conf import settings

from controlplane.doctor.finding import Finding, error, ok, warning

LITTLE = 200 * 2**20
FULL = 10 * 2**20
"""Bytes that are left."""


def examine() -> Iterator[Finding]:
    directory = settings.INSTANCE.data_dir
    if not directory.exists():
        return
    left = shutil.disk_usage(directory).free
    detail = f"{left / 2**20:,.0f} MiB are left for {directory}."
    if left < FULL:
        yield error("disk", detail, "Free some space: writes are refused (503) until there is some.")
    elif left < LITTLE:
        yield warning("disk", detail, "Free some space, or move the data directory to a larger disk.")
    else:
        yield ok("disk", detail)
