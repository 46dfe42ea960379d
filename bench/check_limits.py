"""Checks of four limits against one raw EVALSHA, interleaved in the same process over TCP.

    python -m bench.check_limits [--seconds 10] [--profile]

Prints the median ratio of rates per mixture of algorithms. The baseline is redis-py with hiredis running a one-key
script (INCR and PEXPIRE). No figure here is asserted on: read the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable

from quotas.engine.limiter import Limiter
from quotas.engine.types import Limit
from tests.valkey import run_server, valkey_binary

RAW = "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return n"
SCOPES = ("ip", "user", "project", "endpoint")
MIXES = {
    "fixed_window": ("fixed_window",) * 4,
    "token_bucket": ("token_bucket",) * 4,
    "sliding_window": ("sliding_window",) * 4,
    "mixed": ("sliding_window", "token_bucket", "sliding_window_counter", "calendar"),
}
WINDOWS = (60.0, 3600.0, 60.0, 86400.0)


def limits_for(mix: str, subject: int, limit: int = 1_000_000_000) -> list[Limit]:
    return [
        Limit(
            id=f"{mix}-{scope}",
            name=f"{mix}-{scope}",
            scope=scope,
            subject=f"{scope}-{subject}",
            algorithm=algorithm,
            limit=limit,
            window=window,
            period="day" if algorithm == "calendar" else "",
        )
        for scope, algorithm, window in zip(SCOPES, MIXES[mix], WINDOWS, strict=True)
    ]


def rate(step: Callable[[int], object], count: int) -> float:
    start = time.perf_counter()
    for n in range(count):
        step(n)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with run_server(valkey_binary()) as server, server.client() as client:
        limiter = Limiter(client)
        sha = client.script_load(RAW)

        def raw(n: int) -> object:
            return client.evalsha(sha, 1, f"raw:{n % 1000}", 60000)

        steps: dict[str, Callable[[int], object]] = {}
        for mix in MIXES:
            subjects = [limits_for(mix, n) for n in range(1000)]
            steps[mix] = lambda n, subjects=subjects: limiter.check(subjects[n % 1000])
        full = limits_for("sliding_window", 7, limit=0)
        steps["denied"] = lambda n: limiter.check(full)
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(rate, steps["mixed"], 5000)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        for step in (raw, *steps.values()):
            rate(step, 500)
        ratios: dict[str, list[float]] = {mix: [] for mix in steps}
        rates: dict[str, list[float]] = {mix: [] for mix in ("raw", *steps)}
        until = time.perf_counter() + options.seconds
        while time.perf_counter() < until:
            base = rate(raw, 200)
            rates["raw"].append(base)
            for mix, step in steps.items():
                rates[mix].append(rate(step, 200))
                ratios[mix].append(rates[mix][-1] / base)
        print(f"{'':24}{'per second':>12}{'of raw EVALSHA':>16}")
        print(f"{'raw EVALSHA, one key':24}{statistics.median(rates['raw']):12,.0f}{1:16.2f}")
        for mix in steps:
            print(
                f"{mix + ', 4 limits':24}{statistics.median(rates[mix]):12,.0f}{statistics.median(ratios[mix]):16.2f}"
            )


if __name__ == "__main__":
    main()
