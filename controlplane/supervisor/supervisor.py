"""The loop that supervises child processes: one thread, woken by their output, their ends, and signals."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from controlplane.supervisor.child import Child, ChildSpec
from controlplane.supervisor.child_log import ChildLog
from controlplane.supervisor.errors import ChildGivenUp, ConditionTimeout, Stopped
from controlplane.supervisor.failing import FAILING_AFTER, Failing, FailingFile

TICK = 0.05
"""Seconds between two checks of a condition."""
IDLE_TICK = 5.0
"""Seconds to sleep while nothing is expected: output, exits and signals wake the loop."""
CALM = 15.0
"""Seconds of life after which a child is no longer named as one that keeps dying."""
STARTS = 5
"""Deaths of a child that has never been ready after which the supervisor ends."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """Use as a context manager in the main thread: on leaving, all children are stopped, lowest rank first.

    A child that exits is started again, with growing waits, for ever; only one that has never been ready (`all_ready`)
    ends the supervisor, after `STARTS` deaths. `pid_dir` has a file for each child, named after it, with its process
    id: programs give themselves other titles. `failing` is the file that names children that keep dying. `say(name,
    line)` gets every line that a child prints, and with the name `up` starts and exits of children.
    """

    def __init__(
        self, log_dir: Path, pid_dir: Path, say: Callable[[str, str], None], failing: Path | None = None
    ) -> None:
        self.children: dict[str, Child] = {}
        self._log_dir = log_dir
        self._pid_dir = pid_dir
        self._say = say
        self._failing = FailingFile(failing or pid_dir.with_name("failing.json"))
        self._selector = selectors.DefaultSelector()
        self._stops = 0
        self.calm = CALM
        self._unnoted: set[str] = set()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Supervisor:
        for directory in (self._log_dir, self._pid_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stale in self._pid_dir.iterdir():
            stale.unlink()
        self._failing.open()
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._wakeup = signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_stop)
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._failing.close()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            self._selector.close()
            self._wake_read.close()
            self._wake_write.close()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stops += 1

    # Starting and watching

    def start(self, spec: ChildSpec) -> Child:
        """Run `spec` and keep it running."""
        child = self.children[spec.name] = self._child(spec)
        self._launch(child)
        return child

    def run(self, spec: ChildSpec) -> None:
        """Run `spec` to its end, while the others are watched; raises `ChildGivenUp` unless it ends with 0."""
        child = self._child(spec)
        self._launch(child)
        try:
            self._watch(lambda: child.poll() is not None)
        finally:
            status = self._reap(child)
            child.log.close()
        if status:
            raise ChildGivenUp(spec.name, f"ended with {status}", child.log.tail)

    def until(self, condition: Callable[[], bool], seconds: float, what: str, every: float = 0.0) -> None:
        """Watch until `condition()` is true, evaluated `every` so many seconds; raises `ConditionTimeout` after `seconds`, `Stopped` on a signal."""
        deadline = time.monotonic() + seconds
        ask_at = 0.0

        def settled() -> bool:
            nonlocal ask_at
            now = time.monotonic()
            if now < ask_at:
                return False
            ask_at = now + every
            if condition():
                return True
            if now > deadline:
                raise ConditionTimeout(f"{what}: not within {seconds:g} s")
            return False

        self._watch(settled)

    def all_ready(self) -> None:
        """The whole is ready: each child that runs and has not died is, too, and is started again for ever."""
        for child in self.children.values():
            child.was_ready |= child.life() is not None and not child.backoff.deaths

    def forever(self) -> None:
        """Watch until a signal to stop arrives; raises `ChildGivenUp` for a child that never becomes ready."""
        while not self._stops:
            self._tick(IDLE_TICK)

    def _watch(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._tick(TICK)
            if self._stops:
                raise Stopped("stopped by a signal")

    def _child(self, spec: ChildSpec) -> Child:
        return Child(spec, ChildLog(self._log_dir / f"{spec.name}.log", lambda line: self._say(spec.name, line)))

    def _launch(self, child: Child) -> None:
        child.start()
        self._note_pid(child)
        self._selector.register(child.output, selectors.EVENT_READ, child)

    def _relaunch(self, child: Child) -> None:
        """Start it again; where the system has no room for a process now, that counts as a death."""
        try:
            self._launch(child)
        except (OSError, subprocess.SubprocessError) as error:
            child.died(1)
            self._say("up", f"{child.name} can't be started now: {error}")

    def _note_pid(self, child: Child) -> None:
        """Write its process id; where the disk is full, each tick tries again."""
        try:
            (self._pid_dir / child.name).write_text(f"{child.pid}\n")
            self._unnoted.discard(child.name)
        except OSError:
            self._unnoted.add(child.name)

    def _reap(self, child: Child) -> int:
        if not child.silent:
            self._selector.unregister(child.output)
        with contextlib.suppress(OSError):
            (self._pid_dir / child.name).unlink(missing_ok=True)
        return child.reap()

    def _tick(self, timeout: float) -> None:
        now = time.monotonic()
        pending = [child.restart_at - now for child in self.children.values() if child.restart_at is not None]
        self._wait_for_events(max(0.0, min([timeout, *pending])))
        now = time.monotonic()
        for child in self.children.values():
            if child.poll() is not None:
                self._on_child_exit(child)
            elif child.restart_at is not None and child.restart_at <= now:
                self._relaunch(child)
            elif child.name in self._unnoted and child.process is not None:
                self._note_pid(child)
        self._failing.write(self._keep_dying())

    def _keep_dying(self) -> list[Failing]:
        found = []
        for child in self.children.values():
            if (child.life() or 0.0) < self.calm and child.backoff.deaths >= FAILING_AFTER:
                found.append(Failing(child.name, child.backoff.deaths, child.status))
        return found

    def _wait_for_events(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wake_read.recv(4096)
                continue
            key.data.read()
            if key.data.silent:
                self._selector.unregister(key.fd)

    def _on_child_exit(self, child: Child) -> None:
        status = self._reap(child)
        child.died(status)
        if not child.was_ready and child.backoff.deaths >= STARTS:
            raise ChildGivenUp(child.name, f"died {STARTS} times and never became ready", child.log.tail)
        self._say("up", f"{child.name} ended with {status}, starting it again")

    # Stopping

    def stop(self) -> None:
        """Stop rank after rank, each within its grace; a second signal ends the waiting."""
        asked = max(self._stops, 1)
        ranks = sorted({child.spec.rank for child in self.children.values()})
        for rank in ranks:
            alive = [child for child in self.children.values() if child.spec.rank == rank and child.process]
            for child in alive:
                child.terminate()
            deadline = time.monotonic() + max((child.spec.grace for child in alive), default=0.0)
            while any(child.poll() is None for child in alive) and time.monotonic() < deadline:
                if self._stops > asked and rank != ranks[-1]:  # the last one stores the data: it may always finish
                    break
                self._wait_for_events(TICK)
            for child in alive:
                if child.poll() is None:
                    self._say("up", f"{child.name} did not stop in time and is killed")
                self._reap(child)
        for child in self.children.values():
            child.log.close()
        self.children.clear()
