"""The supervisor with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.supervisor import ChildGivenUp, ChildSpec, ConditionTimeout, Stopped, Supervisor, failing
from controlplane.supervisor.backoff import Backoff
from tests.support.disk import fill, small_file_system


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(code))


class Family:
    """A supervisor that notes what is said."""

    def __init__(self, log_dir: Path) -> None:
        self.lines: list[tuple[str, str]] = []
        self.supervisor = Supervisor(log_dir, log_dir / "pids", lambda name, line: self.lines.append((name, line)))

    def said(self, name: str, line: str) -> bool:
        return (name, line) in self.lines


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return Family(tmp_path / "logs")


def test_a_child_that_is_killed_is_started_again(family: Family) -> None:
    with family.supervisor as supervisor:
        child = supervisor.start(ChildSpec("sleeper", python("print('up'); import time; time.sleep(60)")))
        supervisor.until(lambda: family.said("sleeper", "up"), 10, "first start")
        first = child.pid
        assert first
        os.kill(first, signal.SIGKILL)
        supervisor.until(lambda: family.lines.count(("sleeper", "up")) == 2, 10, "second start")
        assert child.pid != first
        assert family.said("up", "sleeper ended with -9, starting it again")


def test_a_child_that_never_becomes_ready_ends_it_with_its_last_lines(family: Family) -> None:
    with pytest.raises(ChildGivenUp, match="never became ready") as caught, family.supervisor as supervisor:
        supervisor.start(ChildSpec("broken", python("print('no such table'); raise SystemExit(3)")))
        supervisor.forever()
    assert caught.value.name == "broken"
    assert caught.value.lines == ("no such table",) * 5
    assert (family.supervisor.children) == {}


def test_a_child_that_was_ready_is_started_for_ever_and_named(family: Family, tmp_path: Path) -> None:
    with family.supervisor as supervisor:
        flag = tmp_path / "dies"
        code = f"""
            import pathlib, time
            print("up")
            while not pathlib.Path({str(flag)!r}).exists():
                time.sleep(0.01)
            raise SystemExit(3)
        """
        child = supervisor.start(ChildSpec("dying", python(code)))
        supervisor.start(ChildSpec("other", python("import time; time.sleep(60)")))
        supervisor.until(lambda: family.said("dying", "up"), 10, "first start")
        supervisor.all_ready()
        child.backoff = Backoff(longest=0.2)
        flag.touch()
        supervisor.until(lambda: child.restarts >= 7, 30, "more deaths than a child may have before it was ready")
        (named,) = failing.read(tmp_path / "logs" / "failing.json")
        assert (named.name, named.status) == ("dying", 3)
        assert named.deaths >= 6
        flag.unlink()
        starts = family.lines.count(("dying", "up"))
        supervisor.until(lambda: family.lines.count(("dying", "up")) > starts, 30, "a start that lasts")
        supervisor.calm = 0.2
        supervisor.until(lambda: failing.read(tmp_path / "logs" / "failing.json") == [], 10, "a steady life")


def test_a_child_that_can_not_be_started_again_is_tried_for_ever(family: Family, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho up\nsleep 60\n")
    program.chmod(0o700)
    with family.supervisor as supervisor:
        child = supervisor.start(ChildSpec("moved", (str(program),)))
        supervisor.until(lambda: family.said("moved", "up"), 10, "first start")
        supervisor.all_ready()
        child.backoff = Backoff(longest=0.2)
        program.rename(tmp_path / "away")
        os.killpg(child.pid or 0, signal.SIGKILL)
        supervisor.until(lambda: child.restarts >= 6, 30, "tries")
        (tmp_path / "away").rename(program)
        supervisor.until(lambda: child.pid is not None, 30, "a start")


def test_waits_double_to_ten_seconds_and_begin_anew_after_a_minute_of_life() -> None:
    backoff = Backoff()
    waits = [backoff.died(0.5) for _ in range(9)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.died(59.0) == 10.0
    assert backoff.died(60.0) == 0.1
    assert backoff.died(1.0) == 0.2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with small_file_system(tmp_path / "disk", megabytes=1) as directory:
        yield directory


def test_a_full_disk_ends_nothing_and_what_could_not_be_written_is_counted(small_disk: Path) -> None:
    lines: list[str] = []
    supervisor = Supervisor(small_disk / "logs", small_disk / "pids", lambda name, line: lines.append(line))
    with supervisor:
        code = """
            import time
            n = 0
            while True:
                print(n, "x" * 500)
                n += 1
                time.sleep(0.002)
        """
        child = supervisor.start(ChildSpec("talker", python(code)))
        supervisor.until(lambda: len(lines) > 10, 10, "output")
        supervisor.all_ready()
        fill(small_disk / "ballast")
        supervisor.until(lambda: child.log.lost > 20, 20, "lines that can't be written")
        for deaths in range(1, 6):
            assert child.pid
            os.kill(child.pid, signal.SIGKILL)
            supervisor.until(lambda deaths=deaths: child.restarts == deaths and child.pid is not None, 20, "a restart")
        assert [one.name for one in failing.read(small_disk / "failing.json")] == ["talker"], "written in place"
        (small_disk / "ballast").unlink()
        supervisor.until(lambda: child.log.lost == 0, 20, "room again")
    text = (small_disk / "logs" / "talker.log").read_text()
    assert "lines could not be written here)" in text
    whole = [line for line in text.splitlines() if line.endswith("x" * 500)]
    assert all(line.split()[0].isdigit() for line in whole)


def test_children_stop_in_the_order_of_their_ranks(family: Family) -> None:
    code = """
        import signal, sys, time
        def stop(*_):
            time.sleep(0.2)
            print("stopped")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        print("up")
        while True:
            time.sleep(1)
    """
    with family.supervisor as supervisor:
        for name, rank in (("data", 9), ("web", 0), ("worker", 5)):
            supervisor.start(ChildSpec(name, python(code), rank=rank))
        for name in ("data", "web", "worker"):
            supervisor.until(lambda name=name: family.said(name, "up"), 10, name)
    assert [name for name, line in family.lines if line == "stopped"] == ["web", "worker", "data"]


def test_a_child_that_ignores_the_request_is_killed_after_its_grace(family: Family) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up')\nwhile True: time.sleep(1)"
    with family.supervisor as supervisor:
        child = supervisor.start(ChildSpec("stubborn", python(code), grace=0.3))
        supervisor.until(lambda: family.said("stubborn", "up"), 10, "start")
        pid = child.pid
    assert pid
    assert not _alive(pid)
    assert family.said("up", "stubborn did not stop in time and is killed")


def test_a_second_signal_ends_the_patience(family: Family) -> None:
    code = "import signal, time; signal.signal(15, lambda *_: print('not yet')); print('up')\nwhile True: time.sleep(1)"
    before = time.monotonic()
    with family.supervisor as supervisor:
        supervisor.start(ChildSpec("slow", python(code), rank=0, grace=60.0))
        supervisor.start(ChildSpec("data", python("import time; time.sleep(60)"), rank=9))
        supervisor.until(lambda: family.said("slow", "up"), 10, "start")
        impatient = threading.Thread(target=_signal_twice, args=(family,))
        impatient.start()
        supervisor.forever()
    impatient.join()
    assert time.monotonic() - before < 50


def _signal_twice(family: Family) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    while not family.said("slow", "not yet"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_a_dead_child_left_behind_is_ended(family: Family) -> None:
    code = """
        import subprocess, sys, time
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(left.pid, flush=True)
        time.sleep(60)
    """
    with family.supervisor as supervisor:
        child = supervisor.start(ChildSpec("parent", python(code)))
        supervisor.until(lambda: bool(family.lines), 10, "start")
        grandchild = int(family.lines[0][1])
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        supervisor.until(lambda: not _alive(grandchild), 10, "the grandchild's end")


def test_waiting_ends_in_time_and_a_step_must_succeed(family: Family) -> None:
    with family.supervisor as supervisor:
        with pytest.raises(ConditionTimeout, match="the moon: not within 0.1 s"):
            supervisor.until(lambda: False, 0.1, "the moon")
        supervisor.run(ChildSpec("step", python("print('fine')")))
        assert family.said("step", "fine")
        with pytest.raises(ChildGivenUp, match="step ended with 2") as caught:
            supervisor.run(ChildSpec("step", python("print('bad'); raise SystemExit(2)")))
        assert caught.value.lines == ("bad",)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            supervisor.until(lambda: False, 10, "never")


def test_children_and_what_they_fork_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    child = """
        import os, time
        from controlplane import parent_death
        parent_death.hand_down()
        forked = os.fork()
        if forked:
            print("pids", os.getpid(), forked, flush=True)
        time.sleep(60)
    """
    parent = f"""
        import sys
        from pathlib import Path
        from controlplane.supervisor import ChildSpec, Supervisor
        here = Path({str(tmp_path)!r})
        with Supervisor(here, here / 'pids', lambda name, line: print(line, flush=True)) as supervisor:
            supervisor.start(ChildSpec("child", (sys.executable, "-c", {textwrap.dedent(child)!r})))
            supervisor.forever()
    """
    supervisor = subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    pids = [int(word) for word in supervisor.stdout.readline().split()[1:]]
    assert len(pids) == 2
    assert all(_alive(pid) for pid in pids)
    supervisor.kill()
    supervisor.wait()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child outlived its parent"
        time.sleep(0.01)
    supervisor.stdout.close()


def _alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
