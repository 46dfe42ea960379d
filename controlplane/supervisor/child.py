"""One supervised process: its specification, its state and its output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane import parent_death
from controlplane.supervisor.backoff import Backoff
from controlplane.supervisor.child_log import ChildLog

STEADY_SECONDS = 10.0
"""A child that ran so long was ready; one that then exits with 0 meant to (a worker that is recycled)."""


@dataclass(frozen=True)
class ChildSpec:
    """A process to keep running. `rank` orders the stop, lowest first; `grace` is how many seconds it may take then."""

    name: str
    argv: tuple[str, ...]
    rank: int = 0
    grace: float = 10.0
    environ: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    cwd: Path | None = None


class Child:
    """A started `ChildSpec`. The process leads a group of its own: a terminal's Ctrl-C reaches the supervisor only."""

    def __init__(self, spec: ChildSpec, log: ChildLog) -> None:
        self.spec = spec
        self.log = log
        self.backoff = Backoff()
        self.process: subprocess.Popen[bytes] | None = None
        self.restart_at: float | None = None
        self.started_at = 0.0
        self.restarts = 0
        self.status = 0
        """Of its last end."""
        self.was_ready = False
        """Whether it has been ready once: it ran when all was ready, or for ten seconds. From then on it is started
        again for ever."""
        self.silent = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def output(self) -> int:
        """File descriptor of its standard output and error."""
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout.fileno()

    def start(self) -> None:
        """Run it. Must be called from the main thread (see `parent_death`). Raises OSError if it can't be run."""
        self.restart_at = None
        self.silent = False
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.spec.argv,
            env={**os.environ, "PYTHONUNBUFFERED": "1", parent_death.SUPERVISED: "1", **self.spec.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.spec.pass_fds,
            cwd=self.spec.cwd,
            start_new_session=True,
            preexec_fn=parent_death.in_child(),  # the supervisor has no threads, so this is safe
        )
        os.set_blocking(self.output, False)

    def read(self) -> bool:
        """Pass on its output; False if there is nothing more for now. `silent` is set at its output's end."""
        try:
            data = os.read(self.output, 65_536)
        except BlockingIOError:
            return False
        self.log.feed(data)
        self.silent = not data
        return bool(data)

    def poll(self) -> int | None:
        """Its exit status once it has ended, negative for a signal; None while it runs and while it is not started."""
        return self.process.poll() if self.process else None

    def died(self, status: int) -> None:
        """Note its end and set `restart_at`."""
        now = time.monotonic()
        lived = now - self.started_at
        steady = lived >= STEADY_SECONDS
        self.was_ready |= steady
        meant_to = status == 0 and steady
        self.restart_at = now + (0.0 if meant_to else self.backoff.died(lived))
        self.restarts += 1
        self.status = status

    def life(self) -> float | None:
        """Seconds since its start, None while it does not run. A long life clears its earlier deaths."""
        if self.process is None:
            return None
        lived = time.monotonic() - self.started_at
        self.was_ready |= lived >= STEADY_SECONDS
        self.backoff.lives(lived)
        return lived

    def terminate(self) -> None:
        """Send SIGTERM to the process alone: it ends its own children."""
        if self.process and self.process.poll() is None:
            self.process.terminate()

    def reap(self) -> int:
        """End what is left of its process group, read the rest of its output; its exit status."""
        assert self.process is not None and self.process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        while self.read():
            pass
        self.log.flush()
        self.process.stdout.close()
        self.process = None
        return status
