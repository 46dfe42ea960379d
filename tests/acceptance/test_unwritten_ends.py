"""Workers that die between the end of a job and the write of it: what ran is repeated and counted once, or is not repeated.

Each of the three kinds of tasks: ends written in groups, each end written before the next job, and at most once.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from controlplane import parent_death
from tests.acceptance.invariants import assert_all_ended_once, charged, statuses, wait_for_the_end
from tests.acceptance.plans import FAULTS
from tests.acceptance.worker_fleet import worker_fleet
from tests.support.instance import BASE_DIR
from tests.support.shapes import BOTH, Deployment, deployed

PLAN = FAULTS


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize("type", ["t.counted", "t.acounted", "t.settled", "t.once_counted"])
def test_twenty_kills_between_end_and_write(shape: str, type: str) -> None:
    with deployed(shape, PLAN) as deployment:
        _die_unwritten(deployment, type, kills=20, jobs=200)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("type", ["t.counted", "t.once_counted"])
def test_kills_between_end_and_write(embedded: Deployment, type: str) -> None:
    _die_unwritten(embedded, type, kills=2, jobs=20)


PLACES = 3


def _die_unwritten(deployment: Deployment, type: str, kills: int, jobs: int) -> None:
    """Workers with `PLACES` slots kill themselves when the first ends are to be written."""
    once, in_groups = type == "t.once_counted", type in ("t.counted", "t.acounted")
    counted = deployment.scratch / "counted"
    counted.unlink(missing_ok=True)
    ids: list[str] = []
    ended: list[str] = []
    for number in range(kills):  # each finds jobs, also where the one before it has claimed all that there were
        ids += deployment.product.submit_bulk(jobs // kills, type, max_attempts=1)
        dying = subprocess.run(
            [sys.executable, "-m", "tests.acceptance.dying_worker", "io", "ended", "1", str(PLACES)],
            cwd=BASE_DIR, env=deployment.instance.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            preexec_fn=parent_death.in_child(), timeout=60, check=False,
        )  # fmt: skip
        assert dying.returncode == 0 and dying.stdout.startswith("dead "), (number, dying.stdout, dying.stderr[-2000:])
        ends = dying.stdout.split()[2:]
        assert ends and (in_groups or len(ends) <= PLACES), "no slot was taken by another job before the write"
        ended += ends
    uids = {str(pk): uid for pk, uid in deployment.rows("SELECT id, uid FROM queues_job")}
    unwritten = {uids[pk] for pk in ended}
    with worker_fleet(deployment.instance) as workers:
        workers.start("io")
        wait_for_the_end(deployment, ids, 240)
    dead = sum(status == "dead" for status in statuses(deployment, ids).values())
    runs = Counter(counted.read_text().split())
    if once:
        assert dead >= len(unwritten), "what was not written is lost, and was not repeated"
        assert set(runs.values()) == {1}
    else:
        assert dead == 0
        assert all(runs[uid] >= 2 for uid in unwritten), "it is not known that they had run"
        assert charged(deployment, ids) == 0
    assert_all_ended_once(deployment, ids, dead=dead)
