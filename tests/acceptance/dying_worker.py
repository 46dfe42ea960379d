"""Workers that kill themselves with a parcel in hand: `python -m tests.acceptance.dying_worker LANE WHERE COUNT [PLACES]`.

One loaded process forks them one after the other, which is as real as a start of its own and a hundred times cheaper:
each connects anew, takes a parcel off the belt with BLMOVE, and is gone. WHERE is `taken` (nothing claimed yet),
`claimed` (claimed in SQL, nothing begun) or `ended` (jobs have run, and the first write of their ends is due). For each
death it prints the time and the ids of the jobs in hand.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any


def main() -> None:
    lane, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    places = int(sys.argv[4]) if len(sys.argv) > 4 else 50
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    import django

    django.setup()
    from django.db import connections
    from django_rq.workers import get_worker
    from rq.serializers import JSONSerializer

    from queues import registry
    from queues.broker import deliveries_of
    from queues.worker import claims, completer, threaded
    from queues.worker.threaded import ThreadedWorker

    assert registry.names()

    class Dying(ThreadedWorker):
        def execute_job(self, job: Any, queue: Any) -> None:
            if where == "ended":
                super().execute_job(job, queue)
                return
            taken = deliveries_of(job)
            if where == "claimed":
                claims.claim(taken, self.name)
            print("dead", f"{time.time():.3f}", *(pk for pk, _ in taken), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    ends: list[int] = []

    class Noting(completer.Completer):
        def ended(self, item: Any) -> None:
            ends.append(item.claimed.id)
            super().ended(item)

    def die(ended: Any, worker: str) -> None:
        """Replaces the write. What the worker starts meanwhile, it may have started in any crash."""
        time.sleep(0.5)
        print("dead", f"{time.time():.3f}", *ends, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "ended":
        completer.complete = die
        threaded.Completer = Noting  # type: ignore[misc]
    for number in range(count):
        connections.close_all()
        pid = os.fork()
        if pid == 0:
            worker: Any = get_worker(
                lane, name=f"dying-{os.getppid()}-{number}", serializer=JSONSerializer, worker_class=Dying
            )
            worker.places = places
            worker.work(logging_level="WARNING")
            os._exit(1)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"worker {number} ended otherwise: {status}")


if __name__ == "__main__":
    main()
