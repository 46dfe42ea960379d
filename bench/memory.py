"""Memory per subject and limit, in full use, with the index: 1,000 per hour, all of them used across the hour.

    python -m bench.memory [--subjects 1000]

The baseline is a log of hits in a sorted set, measured on 20 subjects in the same run.
"""

from __future__ import annotations

import argparse
import uuid

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.types import Limit
from tests.support.valkey import run_server, valkey_binary

HOUR = 3600 * 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1000)
    subjects = parser.parse_args().subjects
    with run_server(valkey_binary()) as server, server.client() as client:
        for subject in range(20):
            client.zadd(f"log:{subject}", {str(uuid.uuid4()): 1.8e15 + hit * 3.6e6 for hit in range(1000)})
        log = sum(client.memory_usage(f"log:{subject}") for subject in range(20)) / 20
        print(f"{'log in a sorted set':24}{log:12,.0f} bytes per subject")
        for algorithm in ("sliding_window", "sliding_window_counter", "token_bucket", "fixed_window"):
            client.flushall()
            now = 1_800_000_000_000_000
            limiter = Limiter(client, clock=lambda: now)  # noqa: B023
            for part in range(60):  # every sub-bucket of the hour
                now = 1_800_000_000_000_000 + part * HOUR // 60
                cost = 17 if part < 40 else 16
                for first in range(0, subjects, 1000):
                    limiter.check_many(
                        CheckRequest([Limit("p", "p", "user", f"user-{n}", algorithm, 1000, cost=cost, window=3600.0)])
                        for n in range(first, min(first + 1000, subjects))
                    )
            one = Limit("p", "p", "user", "user-0", algorithm, 1000, window=3600.0)
            counters = client.keys("{sl}:l:*")
            each = sum(client.memory_usage(key) for key in counters) / subjects
            each += client.memory_usage(limiter.keys.index(one), samples=0) / subjects
            full = each * 100_000 / 2**20
            print(
                f"{algorithm:24}{each:12,.0f} bytes per subject, {full:5.1f} MiB for 100,000, {log / each:4.0f} times less"
            )
            limiter.transport.close()


if __name__ == "__main__":
    main()
