"""Whether a simulated job is admitted, as the engine decides: by all of its policies and an account of its pool, or not at
all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from queues.simulation.accounts import Account, Found, SimulatedPool
from queues.simulation.counters import Counter
from queues.simulation.groups import Charge, SimulatedJob
from queues.simulation.scene import Scene
from queues.simulation.waits import Cause


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a job can't start now, and for how many seconds if time alone helps."""

    cause: Cause
    wait: float
    charge: Charge | None = None
    """The policy's, if one refused it."""
    pool: str = ""
    """The pool that the end of a call may free."""
    by_key: bool = False
    """Only the limits of its own key refuse it."""


@dataclass(frozen=True, slots=True)
class Charged:
    """What a job that starts has been charged. `seconds`: until the last of many that are simulated as one passes the
    `slowest` limit."""

    seconds: float = 0.0
    slowest: Cause | None = None
    pool: SimulatedPool | None = None
    account: Account | None = None
    counters: tuple[tuple[str, Counter, float], ...] = ()
    """Counters that its end frees, by their keys, with the units."""


def denial_of(job: SimulatedJob, scene: Scene, now: float) -> Denial | None:
    """Why the limits or the pool refuse the job now; None also for a job that no wait would help: it dies at once."""
    if is_impossible(job, scene.pools):
        return None
    found: Denial | None = None
    for one in job.charges:
        wait = scene.counters[one.counter].wait(now, one.units, one.capacity)
        if wait and (found is None or wait > found.wait):
            found = Denial(Cause("policy", one.policy), wait, one)
    refused = None if job.need is None else _denial_of_pools(job, scene, now)
    if found is None or refused is None or found.wait >= refused.wait:
        return found or refused
    return refused


def _denial_of_pools(job: SimulatedJob, scene: Scene, now: float) -> Denial | None:
    """Why no account of its pool, or of those that it falls back to, takes the job now."""
    assert job.need is not None
    nearest, best = "", Found(None, math.inf, by_key=True)
    for name in job.need.pools:
        found = scene.pools[name].find(now, job.need)
        if found.account is not None:
            return None
        nearest = nearest if nearest and best.wait <= found.wait else name
        best = Found(None, min(best.wait, found.wait), best.by_ends or found.by_ends, best.by_key and found.by_key)
    return Denial(Cause("pool", job.need.pools[0]), best.wait, pool=nearest if best.by_ends else "", by_key=best.by_key)


def charge(job: SimulatedJob, scene: Scene, now: float) -> Charged:
    """Charge a job that is admitted."""
    seconds, slowest, counters = 0.0, None, []
    for one in job.charges:
        counter = scene.counters[one.counter]
        many = one.units if counter.by_ends else one.units * job.size
        passed = counter.charge(now, many, one.capacity)
        if passed > seconds:
            seconds, slowest = passed, Cause("policy", one.policy)
        if counter.by_ends:
            counters.append((one.counter, counter, float(many)))
    if job.need is None:
        return Charged(seconds, slowest, counters=tuple(counters))
    for name in job.need.pools:
        pool = scene.pools[name]
        account = pool.find(now, job.need).account
        if account is not None:
            passed = pool.charge(account, now, job.need, job.size)
            if passed > seconds:
                seconds, slowest = passed, Cause("pool", name)
            return Charged(seconds, slowest, pool, account, tuple(counters))
    raise AssertionError("the job was not admitted")


def is_impossible(job: SimulatedJob, pools: Mapping[str, SimulatedPool]) -> bool:
    """Whether its cost is above a whole capacity: the dispatcher gives such a job up."""
    if any(one.units > one.capacity > 0 for one in job.charges):
        return True
    need = job.need
    return need is not None and all(
        any(units > capacity > 0 for _, units, capacity in pools[name].charges(need)) for name in need.pools
    )
