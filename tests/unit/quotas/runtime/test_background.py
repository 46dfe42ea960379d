"""Threads that last as long as their process, whatever their passes raise."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from quotas.runtime import background
from tests.support.valkey import wait_for


@pytest.mark.parametrize("raised", [ValueError, OSError, RecursionError, MemoryError, SystemExit, KeyboardInterrupt])
def test_a_pass_that_fails_is_followed_by_the_next(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FAILURE_PAUSE", 0.01)
    stop = threading.Event()
    passes: list[int] = []

    def work() -> None:
        passes.append(1)
        raise raised("whatever is put into it")

    thread = background.start("tested", work, stop)
    wait_for(lambda: len(passes) >= 3)
    assert thread.is_alive()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("raised", "status"), [("ValueError", 0), ("SystemExit", background.DIED)])
def test_the_end_of_a_vital_thread_ends_its_process(raised: str, status: int) -> None:
    code = f"""
        import threading, time
        from quotas.runtime import background
        begun = threading.Event()
        def work():
            begun.set()
            raise {raised}
        background.start("vital", work, threading.Event(), vital=True)
        begun.wait()
        time.sleep(3)
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
