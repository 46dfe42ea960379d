"""Account acquire + settle against one raw EVALSHA, and the utilisation of an upstream that enforces its limits.

    python -m bench.accounts [--seconds 10] [--profile]          acquire + settle, 10 and 200 accounts
    python -m bench.accounts --utilisation [--jobs 2000]         4 accounts at the simulator, configured and learned

The baseline of the first is redis-py with hiredis running a one-key script (INCR and PEXPIRE), interleaved in the same
process over TCP. What is measured is CPU time, the caller's and the server's: read the ratios, not the times. The second makes real calls with wrong estimates of tokens
and prints how much of the allowed rate was used, and how many calls the provider refused.
"""

from __future__ import annotations

import argparse
import cProfile
import http.client
import json
import pstats
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import redis

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.dialects import read
from quotas.engine.types import AccountSpec, AdmitRequest, CallOutcome, Limit, PoolSpec
from tests.support.valkey import run_server, valkey_binary

RAW = "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return n"
PLENTY = 1_000_000_000
TOGETHER = 50
"""Admissions in one round trip, as the dispatcher makes them."""


def bucket(unit: str, limit: int, burst: int | None = None) -> Limit:
    return Limit(f"t-{unit}", unit, "account", "", "token_bucket", limit, unit=unit, window=60.0, burst=burst)


def pool(size: int, limits: tuple[Limit, ...], strategy: str = "health") -> PoolSpec:
    accounts = tuple(AccountSpec(f"a{n}", f"a{n}") for n in range(1, size + 1))
    name = f"{strategy}-{size}"
    return PoolSpec(name, name, "openai", strategy, accounts, limits, pause_at=None)


def cpu_of(step: Callable[[], object], client: redis.Redis, count: int = 100) -> tuple[float, float, float]:
    """Microseconds of CPU per step: of the caller, of the server, and of that in scripts (by the server's clock)."""

    def server() -> tuple[float, float]:
        found = client.info("cpu")
        stats = client.info("commandstats")
        scripts = sum(stats.get(f"cmdstat_{name}", {"usec": 0})["usec"] for name in ("evalsha", "fcall", "fcall_ro"))
        return found["used_cpu_user"] + found["used_cpu_sys"], scripts

    used, scripts = server()
    start = time.process_time()
    for _ in range(count):
        step()
    mine = time.process_time() - start
    used_after, scripts_after = server()
    return mine / count * 1e6, (used_after - used) / count * 1e6, (scripts_after - scripts) / count


def overhead(seconds: float, profile: bool) -> None:
    with run_server(valkey_binary()) as server, server.client() as client:
        accounts = Accounts(client)
        sha = client.script_load(RAW)
        limits = (bucket("requests", PLENTY), bucket("tokens", PLENTY))
        ok = CallOutcome("ok", status=200, latency=0.2, usage={"tokens": 50})

        def pair(spec: PoolSpec) -> Callable[[], object]:
            request = AdmitRequest(pool=spec, cost={"tokens": 100})
            return lambda: accounts.settle(accounts.admit(request).lease or "", ok)

        full = pool(10, (bucket("requests", 0),))
        steps: dict[str, Callable[[], object]] = {"raw EVALSHA": lambda: client.evalsha(sha, 1, "raw", 60000)}
        for strategy in ("round_robin", "health", "most_headroom"):
            steps[f"acquire + settle, 10 accounts, {strategy}"] = pair(pool(10, limits, strategy))
        steps["acquire + settle, 10 accounts, no limits"] = pair(pool(10, (), "health"))
        steps["acquire + settle, 200 accounts, health"] = pair(pool(200, limits))
        steps["acquire, 10 accounts, none free"] = lambda: accounts.admit(AdmitRequest(pool=full))

        def together() -> None:
            admitted = accounts.admit_many([AdmitRequest(pool=batched, cost={"tokens": 100})] * TOGETHER)
            accounts.settle_many([(admission.lease or "", ok) for admission in admitted])

        def raw_together() -> None:
            pipeline = client.pipeline(transaction=False)
            for _ in range(TOGETHER):
                pipeline.evalsha(sha, 1, "raw", 60000)
            pipeline.execute()

        batched = pool(10, limits, "health")
        batches: dict[str, Callable[[], object]] = {
            f"raw EVALSHA, {TOGETHER} in a pipeline": raw_together,
            f"acquire + settle, 10 accounts, {TOGETHER} together": together,
        }
        if profile:
            found = cProfile.Profile()
            found.runcall(cpu_of, steps["acquire + settle, 10 accounts, health"], client, 3000)
            pstats.Stats(found).sort_stats("tottime").print_stats(25)
            return
        for step in steps.values():
            step()
            cpu_of(step, client, 200)
        rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in steps}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, step in steps.items():
                rounds[name].append(cpu_of(step, client))
            for name, step in batches.items():
                taken = cpu_of(step, client, 4)
                rounds.setdefault(name, []).append((taken[0] / TOGETHER, taken[1] / TOGETHER, taken[2] / TOGETHER))
        single = [mine + server for mine, server, _ in rounds["raw EVALSHA"]]
        many = [mine + server for mine, server, _ in rounds[next(iter(batches))]]
        print(f"{'CPU, microseconds':48}{'caller':>8}{'server':>8}{'scripts':>8}{'x raw':>8}")
        for name, taken in rounds.items():
            raw = many if name in batches else single
            caller, served, scripts = (statistics.median(column) for column in zip(*taken, strict=True))
            ratio = statistics.median(
                (mine + server) / base for (mine, server, _), base in zip(taken, raw, strict=True)
            )
            print(f"{name:48}{caller:8.0f}{served:8.0f}{scripts:8.0f}{ratio:8.2f}")


class Caller(threading.Thread):
    """Takes jobs until there are none, waits as long as the admission says, and calls the simulator with its account's key."""

    def __init__(self, accounts: Accounts, spec: PoolSpec, port: int, jobs: list[tuple[str, int]]) -> None:
        super().__init__()
        self.accounts, self.spec, self.jobs = accounts, spec, jobs
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def run(self) -> None:
        while self.jobs:
            try:
                prompt, estimate = self.jobs.pop()
            except IndexError:
                return
            while True:
                admission = self.accounts.admit(AdmitRequest(pool=self.spec, cost={"tokens": estimate}))
                if not admission:
                    time.sleep(min(admission.retry_after or 1.0, 5.0) * random.uniform(1.0, 1.02))
                    continue
                if self.call(admission.lease or "", str(admission.account_id), prompt):
                    break

    def call(self, lease: str, key: str, prompt: str) -> bool:
        body = {"model": "gpt-4o-mini", "max_tokens": 40, "messages": [{"role": "user", "content": prompt}]}
        start = time.perf_counter()
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {key}"})
        response = self.connection.getresponse()
        outcome = read("openai", response.status, response.getheaders(), response.read())
        latency = time.perf_counter() - start
        self.accounts.settle(
            lease, CallOutcome(**{**{f: getattr(outcome, f) for f in outcome.__slots__}, "latency": latency})
        )
        return response.status == 200


def utilisation(jobs: int, rpm: int, tpm: int, burst: int, latency: int) -> None:
    print(f"{jobs} jobs, 4 accounts of {rpm} requests (burst {burst}) and {tpm} tokens a minute, {latency} ms each")
    print(f"{'':14}{'seconds':>9}{'arithmetic':>12}{'used':>8}{'refused':>9}")
    for name in ("configured", "learned"):
        command = [sys.executable, "-m", "controlplane.simulator", "--port", "0", "--die-with-parent"]
        command += ["--rpm", str(rpm), "--tpm", str(tpm), "--burst", str(burst), "--latency", str(latency)]
        simulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert simulator.stdout is not None
        port = int(simulator.stdout.readline().rpartition(":")[2])
        limits = (bucket("requests", rpm, burst - 2), bucket("tokens", tpm)) if name == "configured" else ()
        try:
            with run_server(valkey_binary()) as server, server.client() as client:
                chance = random.Random(5)
                work = [("word " * chance.randint(8, 120), chance.randint(20, 260)) for _ in range(jobs)]
                accounts = Accounts(client)
                start = time.monotonic()
                callers = [Caller(accounts, pool(4, limits, "round_robin"), port, work) for _ in range(40)]
                for caller in callers:
                    caller.start()
                for caller in callers:
                    caller.join()
                took = time.monotonic() - start
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/_stats")
                stats = json.loads(connection.getresponse().read())
        finally:
            simulator.terminate()
            simulator.wait(10)
        tokens = sum(key["tokens"] for key in stats["by_key"].values())
        least = max((jobs - 4 * burst) * 60 / (4 * rpm), (tokens - 4 * tpm) * 60 / (4 * tpm))
        print(f"{name:14}{took:9.1f}{least:12.1f}{least / took:8.1%}{stats['refused'] / jobs:9.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--utilisation", action="store_true")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rpm", type=int, default=600)
    parser.add_argument("--tpm", type=int, default=60000)
    parser.add_argument("--burst", type=int, default=60)
    parser.add_argument("--latency", type=int, default=50)
    given = parser.parse_args()
    if given.utilisation:
        utilisation(given.jobs, given.rpm, given.tpm, given.burst, given.latency)
    else:
        overhead(given.seconds, given.profile)


if __name__ == "__main__":
    main()
