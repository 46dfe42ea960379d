"""Leased checks against one raw EVALSHA, interleaved in the same process over TCP.

python -m bench.leases [--seconds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

from bench.check_limits import RAW, limits_for, rate
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.prepaid import PrepaidLease
from tests.support.valkey import run_server, valkey_binary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with run_server(valkey_binary()) as server, server.client() as client:
        sha = client.script_load(RAW)
        lease = PrepaidLease(Limiter(client), limits_for("mixed", 1), units=10_000)
        rates: list[tuple[float, float]] = []
        until = time.perf_counter() + options.seconds
        while time.perf_counter() < until:
            base = rate(lambda n: client.evalsha(sha, 1, f"raw:{n % 1000}", 60000), 200)
            rates.append((base, rate(lambda n: lease.spend(), 20_000)))
        single = []
        for _ in range(20_000):
            start = time.perf_counter_ns()
            lease.spend()
            single.append(time.perf_counter_ns() - start)
        ratio = statistics.median(leased / base for base, leased in rates)
        print(f"raw EVALSHA   {statistics.median(base for base, _ in rates):12,.0f} per second")
        print(
            f"leased check  {statistics.median(leased for _, leased in rates):12,.0f} per second, {ratio:.0f} times raw"
        )
        print(f"p50 {statistics.median(single) / 1000:.2f} us, p99 {sorted(single)[19_800] / 1000:.2f} us")


if __name__ == "__main__":
    main()
