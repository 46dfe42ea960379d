"""Scenes for the simulation: jobs, limits and pools by a few words each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from queues.config import ProjectSpec
from queues.simulation.accounts import Account, Need, SimulatedPool
from queues.simulation.counters import NOTHING, Counter, Use, counter_of
from queues.simulation.groups import Charge, SimulatedJob
from queues.simulation.scene import Outcome, Scene
from queues.simulation.simulation import simulate
from queues.states import GroupKey
from quotas.engine.types import AccountSpec, Limit, PoolSpec

START = datetime(2030, 1, 1, tzinfo=UTC)
NOW = START.timestamp()
_ids = count(1)


def limit(algorithm: str = "token_bucket", limit: int = 2, window: float = 1.0, **fields: Any) -> Limit:
    return Limit(
        id=fields.pop("name", "p1"), name="p", scope=fields.pop("scope", "user"), subject="", algorithm=algorithm, limit=limit,
        window=window, **fields,
    )  # fmt: skip


def counter(use: Use = NOTHING, in_flight: float = 0.0, **fields: Any) -> Counter:
    return counter_of(limit(**fields), use, NOW, in_flight=in_flight)


def charge(name: str, capacity: float, units: int = 1) -> Charge:
    return Charge(name, name, units, capacity)


def job(seconds: float = 0.0, project: int = 1, priority: int = 5, age: float = 0.0, **fields: Any) -> SimulatedJob:
    return SimulatedJob(
        id=next(_ids), group=GroupKey(fields.pop("queue", 1), priority, project, fields.pop("pool", "")),
        created_at=START - timedelta(seconds=age), lane=fields.pop("lane", "io"), seconds=seconds,
        counts=fields.pop("counts", True), **fields,
    )  # fmt: skip


def jobs(number: int, **fields: Any) -> list[SimulatedJob]:
    return [job(**fields) for _ in range(number)]


def pool(accounts: int = 1, free_from: float = 0.0, most: int | None = None, **fields: Any) -> SimulatedPool:
    specs = tuple(AccountSpec(str(number), f"a{number}") for number in range(accounts))
    spec = PoolSpec("1", "llm", accounts=specs, **{"pause_at": None, **fields})
    made = [
        Account(free_from, {one.id: counter_of(one, NOTHING, NOW) for one in spec.limits}, most)
        for _ in range(accounts)
    ]
    return SimulatedPool(spec, made)


def need(priority: int = 5, key: str = "", **cost: int) -> Need:
    return Need(("llm",), cost or {"requests": 1}, priority, key)


def run(waiting: list[SimulatedJob], slots: int = 1000, **scene: Any) -> Outcome:
    """The outcome, with times in seconds from the beginning."""
    scene.setdefault("projects", {number: ProjectSpec(number, f"p{number}", 1) for number in (1, 2, 3)})
    found = simulate(Scene(now=NOW, jobs=waiting, slots=scene.pop("lanes", {"io": slots}), **scene))
    starts = None if found.starts_at is None else found.starts_at - NOW
    done = None if found.done_at is None else found.done_at - NOW
    return Outcome(starts, done, found.waits, found.never)
