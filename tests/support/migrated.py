"""SQLite and PostgreSQL with the product's tables and nothing else, to be copied: migrations take many seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.made_once import made_once
from tests.support.postgres import Cluster

BASE_DIR = Path(__file__).resolve().parents[2]
SQLITE = "sluice.sqlite3"
CREDENTIAL_KEY = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="


def copy_sqlite(target: Path) -> None:
    """A SQLite file with the product's tables at `target`."""
    for path in made_once("migrated-sqlite", _make_sqlite).glob(f"{SQLITE}*"):
        shutil.copy(path, target.with_name(target.name + path.name.removeprefix(SQLITE)))


def migrated_postgres() -> Path:
    """The directory of a stopped cluster that has the product's tables."""
    return made_once("migrated-postgres", _make_postgres)


def _make_sqlite(directory: Path) -> None:
    _migrate(directory)


def _make_postgres(directory: Path) -> None:
    cluster = Cluster(str(directory))
    cluster.start()
    try:
        # Beside a DATABASE_URL, an instance makes no keys of its own.
        _migrate(directory, DATABASE_URL=cluster.url, SLUICE_SECRET_KEY="k" * 50, SLUICE_CREDENTIAL_KEYS=CREDENTIAL_KEY)
    finally:
        cluster.stop()


def _migrate(directory: Path, **environ: str) -> None:
    """`manage.py migrate` with the keys of an instance that is thrown away: no row depends on them."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    for name in ("DATABASE_URL", "REDIS_URL", "LIMITER_REDIS_URL", "DJANGO_SETTINGS_MODULE"):
        ours.pop(name, None)
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate"],
        cwd=BASE_DIR,
        env={**ours, "SLUICE_DATA_DIR": str(directory), **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"migrate ended with {done.returncode}:\n{done.stdout}{done.stderr}"
