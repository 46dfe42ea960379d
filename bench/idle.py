#!/usr/bin/env python3
"""What an idle instance costs: Redis commands a second and the share of a core, by process.

    python bench/idle.py [--seconds 20] [--workers 2]

`manage.py up` with nothing to do: web server, dispatcher, workers of the lane io and one of the lane cpu, on SQLite and
the embedded Valkey. The baseline is the floor of 50 commands and 5 % of a core.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.cost import cpu_seconds  # noqa: E402
from tests.support.instance import Instance  # noqa: E402

SETTLE = 12.0
"""Seconds after the start in which nothing is measured."""
FLOOR_COMMANDS, FLOOR_SHARE = 50.0, 0.05


def commands(instance: Instance) -> dict[str, int]:
    with instance.redis() as redis:
        stats = redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(found["calls"]) for name, found in stats.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    instance = Instance("--workers", str(options.workers)).start()
    try:
        time.sleep(SETTLE)
        names = instance.family()
        asked, used, begun = commands(instance), {pid: cpu_seconds(pid) for pid in names}, time.monotonic()
        time.sleep(options.seconds)
        span = time.monotonic() - begun
        after = {pid: cpu_seconds(pid) - before for pid, before in used.items()}
        # The two INFO commands of this script do not count.
        calls = {name: count - asked.get(name, 0) for name, count in commands(instance).items() if name != "info"}
    finally:
        instance.remove()
    total, share = sum(calls.values()) / span, sum(after.values()) / span
    for name, count in sorted(calls.items(), key=lambda item: -item[1])[:12]:
        print(f"  {name:28} {count / span:7.2f}/s")
    for pid, spent in sorted(after.items(), key=lambda item: -item[1]):
        print(f"  {100 * spent / span:6.2f} % of a core  {names[pid][:90]}")
    print(f"{total:.1f} Redis commands/s ({total / FLOOR_COMMANDS:.2f} × the floor of {FLOOR_COMMANDS:g})")
    print(f"{100 * share:.1f} % of a core ({share / FLOOR_SHARE:.2f} × the floor of {100 * FLOOR_SHARE:g} %)")


if __name__ == "__main__":
    main()
