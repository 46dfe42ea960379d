"""Shared by the scenarios: an instance, samples of its totals once a second, percentiles, and a report."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance

CHARTS = Path(__file__).resolve().parents[2] / "docs" / "charts"


@contextmanager
def started(*options: str, environ: Mapping[str, str]) -> Iterator[Instance]:
    """A running instance that prints only warnings and errors."""
    instance = Instance(*options, environ={"SLUICE_LOG_LEVEL": "WARNING", **environ}).start()
    try:
        yield instance
    finally:
        instance.remove()


class Watch:
    """Totals of jobs by status, read with one statement each time, so that all values are of one moment."""

    def __init__(self, instance: Instance) -> None:
        path = f"file:{instance.data_dir}/sluice.sqlite3?mode=ro"
        self.sql = sqlite3.connect(path, uri=True, timeout=30, check_same_thread=False)

    def totals(self) -> Counter[str]:
        return Counter(dict(self.sql.execute("SELECT status, count(*) FROM queues_job GROUP BY status").fetchall()))

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.sql.execute(query, values).fetchall()

    def leader(self) -> int:
        """The process id of the leading dispatcher."""
        return int(self.rows("SELECT holder FROM queues_leadership")[0][0].rpartition("-")[2])


class Sampler:
    """Calls `read` about once a second in a thread, and keeps (seconds since the start, value)."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.points: list[tuple[float, float]] = []
        self.began = 0.0

    def __enter__(self) -> Sampler:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(1.0):
            self.points.append((time.monotonic() - self.began, self._read()))

    def rates(self) -> list[tuple[float, float]]:
        """The growth of the value per second."""
        return [
            (later, (more - less) / (later - earlier))
            for (earlier, less), (later, more) in zip(self.points, self.points[1:], strict=False)
        ]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1.0 if all are equal, 1/n if one has everything."""
    total = sum(values)
    return total * total / (len(values) * sum(value * value for value in values)) if total else 1.0


def report(title: str, rows: Mapping[str, object]) -> None:
    print(f"\n{title}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    rows = {**rows, "load of the machine (1, 5, 15 minutes)": f"{load} on {os.cpu_count()} cores"}
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:{width}}  {value}")


def upstream(simulator: Simulator) -> dict[str, object]:
    """The provider's counts, for a report."""
    stats = simulator.stats()
    return {
        "calls at the provider": f"{stats['requests']:,}",
        "refused by the provider": stats["refused"],
        "answered twice (same idempotency key)": stats["duplicates"],
    }
