"""Worker processes of a test's own, which it may kill as often as it likes: the supervisor gives up on a child that dies
five times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane import parent_death
from tests.support.instance import BASE_DIR, Instance


class WorkerFleet:
    """`manage.py rqworker` processes by name, each name used once. `killed` has the time of each one's death."""

    def __init__(self, instance: Instance, **environ: str) -> None:
        self.instance = instance
        self.environ = {**instance.environ, **environ}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: dict[str, float] = {}
        self._count = 0
        self._prefix = os.urandom(2).hex()
        self._log = open(instance.data_dir / "fleet.log", "ab")  # noqa: SIM115

    def start(self, lane: str = "io", *options: str, name: str = "") -> str:
        """One more worker; its name."""
        self._count += 1
        name = name or f"{lane}-{self._prefix}-{self._count}"
        command = [sys.executable, "manage.py", "rqworker", lane, "--name", name, *options]
        self.processes[name] = subprocess.Popen(
            command, cwd=BASE_DIR, env=self.environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            preexec_fn=parent_death.in_child(), start_new_session=True,
        )  # fmt: skip
        return name

    def living(self, lane: str = "") -> list[str]:
        """Names of those that still run, in the order of their start."""
        return [name for name, one in self.processes.items() if one.poll() is None and name.startswith(lane)]

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        self.signal(name, signal.SIGKILL)
        self.processes[name].wait()
        self.killed[name] = time.time()

    def stop(self) -> None:
        for name in self.living():
            with_group = self.processes[name].pid
            os.killpg(with_group, signal.SIGKILL)
            self.processes[name].wait()
        self._log.close()


@contextmanager
def worker_fleet(instance: Instance, **environ: str) -> Iterator[WorkerFleet]:
    made = WorkerFleet(instance, **environ)
    try:
        yield made
    finally:
        made.stop()
