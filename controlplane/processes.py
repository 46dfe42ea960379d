"""The processes that `up` runs, as specifications for the supervisor."""

from __future__ import annotations

import sys

from controlplane.paths import CHECKOUT
from controlplane.supervisor import ChildSpec

WEB_RANK, WORKER_RANK, DISPATCHER_RANK = 0, 10, 20
"""The order in which they stop: first no request comes in, then running jobs finish, then no job is released."""
WORKER_GRACE = 30.0


def manage(*words: str) -> tuple[str, ...]:
    """The command line of one of the project's own commands, for this same interpreter."""
    program = (str(CHECKOUT / "manage.py"),) if CHECKOUT else ("-m", "controlplane")
    return (sys.executable, *program, *words)


def prepare() -> ChildSpec:
    return ChildSpec("prepare", manage("prepare"), grace=30.0)


def web(host: str, port: int) -> ChildSpec:
    argv = (sys.executable, "-m", "controlplane.web", "--host", host, "--port", str(port))
    return ChildSpec("web", argv, rank=WEB_RANK, cwd=CHECKOUT)


def dispatcher() -> ChildSpec:
    return ChildSpec("dispatcher", manage("dispatch"), rank=DISPATCHER_RANK)


def worker(lane: str, number: int, *options: str) -> ChildSpec:
    return ChildSpec(
        f"worker-{lane}-{number}", manage("rqworker", lane, *options), rank=WORKER_RANK, grace=WORKER_GRACE
    )


def workers(io: int, concurrency: int | None = None) -> list[ChildSpec]:
    """`io` workers for I/O, each with `concurrency` jobs at once, and one that forks a process for each job."""
    options = () if concurrency is None else ("--concurrency", str(concurrency))
    return [*(worker("io", number, *options) for number in range(1, io + 1)), worker("cpu", 1)]


def simulator(port: int) -> ChildSpec:
    """A provider whose limits are a little above those of the demonstration's pool."""
    words = ("simulate_upstream", "--port", str(port), "--rpm", "130", "--burst", "24", "--latency", "400")
    return ChildSpec("simulator", manage(*words, "--error-rate", "0.02"), rank=DISPATCHER_RANK, grace=3.0)


def traffic(port: int, url: str) -> ChildSpec:
    """Jobs, checks and calls through the gateway; `port` is the simulator's, `url` the web server's."""
    argv = manage("demo_traffic", "--simulator", str(port), "--url", url)
    return ChildSpec("traffic", argv, rank=WEB_RANK, grace=3.0)
