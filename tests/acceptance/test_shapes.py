"""Tests that normally run on the embedded shape, run on a PostgreSQL and a Redis of their own, in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = (
    "accounts",
    "account_faults",
    "http",
    "jobs",
    "limits",
    "limit_checks",
    "limit_operations",
    "queue_api",
    "job_life",
)


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(1800)
def test_the_same_tests_pass_on_servers_of_their_own() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not long"]
    command += [str(HERE / f"test_{name}.py") for name in NAMES]
    environ = {**os.environ, "SLUICE_TEST_SHAPE": "separate"}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
