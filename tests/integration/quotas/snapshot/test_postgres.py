"""The limits' own use of SQL on PostgreSQL: the same tests, run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PART = [
    "tests/integration/quotas/api/test_history.py",
    "tests/integration/quotas/snapshot/test_resolution.py",
    "tests/integration/quotas/api/test_adaptive.py",
]
WHOLE = [
    "tests/integration/quotas/api",
    "tests/integration/quotas/snapshot",
    "tests/integration/quotas/test_limits.py",
    "tests/integration/quotas/test_pools.py",
    "tests/integration/quotas/upstream",
    "tests/integration/quotas/web",
    "tests/integration/controlplane/config",
]


@pytest.mark.postgres
@pytest.mark.parametrize("tests", [PART, pytest.param(WHOLE, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_the_same_tests_hold_on_postgresql(postgres_url: str, tests: list[str]) -> None:
    environ = {**os.environ, "SLUICE_TEST_DATABASE_URL": postgres_url}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not long and not postgres",
        *tests,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "failed" not in done.stdout
