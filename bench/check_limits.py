"""Checks of four limits against one raw EVALSHA and against other libraries, interleaved in one process over TCP.

    python -m bench.check_limits [--seconds 20] [--server /usr/bin/redis-server] [--no-peers] [--profile]

Prints the median ratio of rates per mixture of algorithms, what a call costs the caller and the server in CPU time, and
how many round trips it takes. The baseline is redis-py with hiredis running a one-key script (INCR and PEXPIRE). The
peers are the dependency group `bench`. No figure here is asserted on: read the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Limit
from tests.support.valkey import run_server, valkey_binary

RAW = "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return n"
SCOPES = ("ip", "user", "project", "endpoint")
MIXES = {
    "fixed_window": ("fixed_window",) * 4,
    "token_bucket": ("token_bucket",) * 4,
    "sliding_window": ("sliding_window",) * 4,
    "mixed": ("sliding_window", "token_bucket", "sliding_window_counter", "calendar"),
    "mixed with slots": ("sliding_window", "token_bucket", "fixed_window", "concurrency"),
}
WINDOWS = (60.0, 3600.0, 60.0, 86400.0)
SUBJECTS = 1000
Step = Callable[[int], object]
CONFIGURATIONS = ((4, 0), (1000, 0), (10_000, 100_000))
"""Policies and overrides."""
FRESH = itertools.count()


def limits_for(mix: str, subject: int, limit: int = 1_000_000_000) -> list[Limit]:
    return [
        Limit(
            id=f"{mix}-{scope}".replace(" ", "-"),
            name=f"{mix}-{scope}",
            scope=scope,
            subject=f"{scope}-{subject}",
            algorithm=algorithm,
            limit=limit,
            window=window,
            period="day" if algorithm == "calendar" else "",
            lease_ttl=1.0,
        )
        for scope, algorithm, window in zip(SCOPES, MIXES[mix], WINDOWS, strict=True)
    ]


def rate(step: Step, count: int) -> float:
    start = time.perf_counter()
    for n in range(count):
        step(n)
    return count / (time.perf_counter() - start)


@dataclass
class Row:
    """One thing that is measured, in rounds."""

    step: Step
    count: int = 200
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    costs: list[tuple[float, float, float]] = field(default_factory=list)
    """Microseconds of the caller, of the server, of that in scripts."""
    commands: float = 0.0

    def round(self, client: redis.Redis) -> float:
        served, scripts, _ = _server(client)
        used, begun = time.process_time(), time.perf_counter()
        for n in range(self.count):
            self.step(n)
        took, used = time.perf_counter() - begun, time.process_time() - used
        served_after, scripts_after, _ = _server(client)
        self.costs.append(
            tuple(1e6 * each / self.count for each in (used, served_after - served, scripts_after - scripts))
        )  # type: ignore[arg-type]
        self.rates.append(self.count / took)
        return self.rates[-1]


def _server(client: redis.Redis) -> tuple[float, float, int]:
    """Seconds of CPU, of that in scripts, reads from sockets; all since the start."""
    found = client.info("everything")
    scripts = sum(found.get(f"cmdstat_{name}", {"usec": 0})["usec"] for name in ("evalsha", "fcall", "fcall_ro"))
    return found["used_cpu_user"] + found["used_cpu_sys"], scripts / 1e6, found["total_reads_processed"]


def round_trips(step: Step, client: redis.Redis) -> float:
    """Reads of the server's socket per call, which are requests as long as each fits in one."""
    own = _server(client)[2] - _server(client)[2]
    before = _server(client)[2]
    for n in range(100):
        step(n)
    return (_server(client)[2] - before + own) / 100


def mixtures(limiter: Limiter) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    for mix in MIXES:
        subjects = [limits_for(mix, n) for n in range(SUBJECTS)]
        steps[f"{mix}, 4 limits"] = lambda n, subjects=subjects: limiter.check(subjects[n % SUBJECTS])
        # The last of the four denies, so that all of them are read and decided.
        full = [[*limits[:3], *limits_for(mix, n, 0)[3:]] for n, limits in enumerate(subjects[:100])]
        steps[f"{mix}, denied"] = lambda n, full=full: limiter.check(full[n % 100])
    return steps


def resolving(limiter: Limiter) -> dict[str, Step]:
    """Finding the policies and the check, with as many policies and overrides as named; four policies apply."""
    steps: dict[str, Step] = {}
    for count, overrides in CONFIGURATIONS:
        found = snapshot(count, overrides)
        for name, path in (("", "/v1/chat"), (", new paths", "/v1/chat/{}")):
            steps[f"{count:,} policies{name}"] = lambda n, found=found, path=path: limiter.check(
                resolve(found, f"10.0.{n % SUBJECTS // 250}.{n % 250}", f"u{n % SUBJECTS}", path.format(next(FRESH)))
            )
    return steps


def resolve(found: object, ip: str, user: str, path: str = "/v1/chat") -> tuple[Limit, ...]:
    from quotas.snapshot import resolve as policies

    return policies.limits_for(project="acme", user=user, ip=ip, endpoint=path, method="POST", snapshot=found)  # type: ignore[arg-type]


def snapshot(count: int, overrides: int = 0) -> object:
    """A configuration of `count` policies: one each for ip, user, project and endpoint, the others of other paths,
    projects and keys. The policy for users has `overrides` exceptions, those of the measured users among them."""
    from quotas.models import Policy, Project
    from quotas.snapshot.addresses import NetworkList
    from quotas.snapshot.config import ConfigSnapshot, ProjectFacts
    from quotas.snapshot.index import PolicyIndex
    from quotas.snapshot.policies import CompiledPolicy

    rows = [
        Policy(pk=1, name="ip", scope="ip", algorithm="sliding_window", limit=10**9, window=60),
        Policy(pk=2, name="user", scope="user", algorithm="token_bucket", limit=10**9, window=3600),
        Policy(pk=3, name="project", scope="project", algorithm="calendar", limit=10**9, period="day"),
        Policy(pk=4, name="endpoint", scope="endpoint", algorithm="fixed_window", limit=10**9, window=60, match="POST /v1/*"),
    ]  # fmt: skip
    other = Project(pk=2, slug="other", name="other")
    for n in range(len(rows), count):
        made = Policy(pk=n + 1, name=f"p{n}", algorithm="fixed_window", limit=10**9, window=60)
        made.scope, made.match, made.key_name, made.project = (
            ("endpoint", f"GET /v1/things/{n}", "", None),
            ("endpoint", f"POST /v2/{n}/*", "", None),
            ("user", "", "", other),
            ("custom", "", f"key{n}", None),
        )[n % 4]
        rows.append(made)
    exceptions = [(None, f"u{n}", 10**9, None) for n in range(overrides)]
    compiled = [CompiledPolicy.of(row, exceptions if row is rows[1] else [], 64) for row in rows]
    return ConfigSnapshot(
        version=1,
        policies={policy.name: policy for policy in compiled},
        index=PolicyIndex(compiled),
        projects={slug: ProjectFacts(n, slug, 1, "") for n, slug in enumerate(("acme", "other"))},
        user_tiers={},
        networks=NetworkList(()),
        cost_rules=(),
        pools={},
        read_at=time.time(),
    )


def prepare_django(directory: str) -> None:
    """Models without a database, for policies and for the peers that need Django."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "controlplane.settings", "SLUICE_DATA_DIR": directory,
        "SLUICE_SECRET_KEY": "bench" * 12, "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    }  # fmt: skip
    import django

    django.setup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--server", default=valkey_binary())
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", default="", help="rows whose names contain this, such as: policies")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        run_server(options.server) as server,
        server.client() as client,
        server.client() as watching,
    ):
        prepare_django(directory)
        limiter = Limiter(client)
        sha = client.script_load(RAW)
        steps = mixtures(limiter)
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(rate, steps["mixed, 4 limits"], 20_000)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        from bench import limit_peers

        peers, missing = limit_peers.installed(server.port) if not options.no_peers else ({}, [])
        raw = Row(lambda n: client.evalsha(sha, 1, f"raw:{n % SUBJECTS}", 60000))
        rows = {name: Row(step) for name, step in (steps | resolving(limiter)).items()}
        rows |= {name: Row(step, 50) for name, step in peers.items()}
        rows = {name: row for name, row in rows.items() if options.only in name}
        for row in (raw, *rows.values()):
            rate(row.step, 1000)
            row.commands = round_trips(row.step, watching)
        until = time.perf_counter() + options.seconds
        while time.perf_counter() < until:
            base = raw.round(watching)
            for row in rows.values():
                row.ratios.append(row.round(watching) / base)
        raw.ratios = [1.0]
        print(f"{'':36}{'':>10}{'of raw':>8}{'round':>7}{'CPU, microseconds':>26}")
        print(f"{'':36}{'a second':>10}{'EVALSHA':>8}{'trips':>7}{'caller':>9}{'server':>8}{'script':>9}")
        for name, row in {"raw EVALSHA, one key": raw, **rows}.items():
            caller, served, scripts = (statistics.median(column) for column in zip(*row.costs, strict=True))
            print(
                f"{name:36}{statistics.median(row.rates):10,.0f}{statistics.median(row.ratios):8.2f}"
                f"{row.commands:7.1f}{caller:9.1f}{served:8.1f}{scripts:9.1f}"
            )
        for count, overrides in CONFIGURATIONS[1:] if "policies" in " ".join(rows) else ():
            for name in ("", ", new paths"):
                few, many = (rows[f"{number:,} policies{name}"].rates for number in (4, count))
                ratio = statistics.median(a / b for a, b in zip(few, many, strict=True))
                print(f"{count:,} policies{name}, {overrides:,} overrides, against 4: {ratio:.2f} times the time")
        for name in missing:
            print(f"not installed, not measured: {name} (pip 25.1: pip install --group bench)")


if __name__ == "__main__":
    main()
