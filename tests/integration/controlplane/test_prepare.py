"""`manage.py prepare` on its own, before the first `up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_prepare_creates_the_data_directory(tmp_path: Path) -> None:
    place = tmp_path / "not" / "there"
    environ = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    done = subprocess.run(
        [sys.executable, "manage.py", "prepare", "--data-dir", str(place)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (place / "credentials.txt").exists() and place.stat().st_mode & 0o077 == 0
