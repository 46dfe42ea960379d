"""A worker whose limits are too low for its concurrency says so at its start; real processes with real limits."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from queues.worker.process_limits import OWN_FILES
from tests.support.instance import BASE_DIR

PREPARE = "from queues.worker.process_limits import prepare; prepare({}); import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
GIB = 1 << 30


def run(words: list[str], *limits: tuple[int, int, int]) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for which, soft, hard in limits:
            resource.setrlimit(which, (soft, hard))

    return subprocess.run(
        [sys.executable, *words], cwd=BASE_DIR, capture_output=True, text=True, timeout=60, preexec_fn=limit
    )


def prepared(places: int, *limits: tuple[int, int, int]) -> subprocess.CompletedProcess[str]:
    return run(["-c", PREPARE.format(places)], *limits)


def test_the_soft_limit_of_open_files_is_raised_as_far_as_it_is_needed() -> None:
    assert int(prepared(500, (resource.RLIMIT_NOFILE, 128, 4096)).stdout) == 2 * 500 + OWN_FILES
    assert int(prepared(500, (resource.RLIMIT_NOFILE, 128, 700)).stdout) == 700, "the hard limit is enough"
    assert int(prepared(50, (resource.RLIMIT_NOFILE, 1024, 4096)).stdout) == 1024, "not lowered"


@pytest.mark.parametrize(
    ("places", "limit", "message"),
    [
        (2000, (resource.RLIMIT_NOFILE, 1024, 1024), r"2,000 jobs at once need 2,064 open files.* 1,024.*ulimit -n"),
        (2000, (resource.RLIMIT_AS, 4 * GIB, 4 * GIB), "address space.*ulimit -v"),
    ],
)
def test_what_is_lacking_is_named(places: int, limit: tuple[int, int, int], message: str) -> None:
    done = prepared(places, limit)
    assert done.returncode == 1
    assert re.search(f"TooFewResources: .*{message}", done.stderr)


def test_more_threads_than_the_kernel_allows() -> None:
    most = int(Path("/proc/sys/kernel/threads-max").read_text())
    done = prepared(most)
    assert re.search(r"TooFewResources: .* threads; .* allows [0-9,]+\. Raise this limit", done.stderr)


def test_the_command_ends_with_the_message() -> None:
    files = (resource.RLIMIT_NOFILE, 1024, 1024)
    done = run(["manage.py", "rqworker", "--concurrency", "2000", "--burst"], files)
    assert done.returncode == 1
    assert "CommandError: 2,000 jobs at once need 2,064 open files" in done.stderr
    assert "Traceback" not in done.stderr
