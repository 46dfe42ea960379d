"""Every test process has its own data directory, keys, Valkey and database; nothing outside of them is touched.

The environment is set here, before Django reads its settings; pytest-xdist's workers each do it for themselves.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import django
import django.conf
import pytest

from tests.support.chromium import chromium
from tests.support.made_once import run_directory
from tests.support.migrated import copy_sqlite
from tests.support.postgres import postgres_binaries, run_postgres
from tests.support.valkey import Server, cluster_server, redis7_server, run_server, valkey, valkey_binary

__all__ = ["cluster_server", "redis7_server", "valkey"]

_closing = ExitStack()
atexit.register(_closing.close)
_closing.enter_context(run_directory())
ROOT = Path(tempfile.mkdtemp(prefix="sluice-test-"))
_closing.callback(shutil.rmtree, ROOT, ignore_errors=True)
VALKEY: Server = _closing.enter_context(run_server(valkey_binary()))

for _name in list(os.environ):
    if _name.startswith("SLUICE_") and not _name.startswith("SLUICE_TEST_"):
        del os.environ[_name]
for _name in ("DATABASE_URL", "LIMITER_REDIS_URL"):
    os.environ.pop(_name, None)
# Hundreds of processes are started, each of which would compile every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ |= {
    "SLUICE_DATA_DIR": str(ROOT / "data"),
    "SLUICE_SECRET_KEY": "only-for-tests-" + "0" * 40,
    "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    "SLUICE_LOG_LEVEL": os.environ.get("SLUICE_TEST_LOG_LEVEL", "WARNING"),
    "SLUICE_LIMITER_TIMEOUT": "10",  # a busy machine is no outage
    "REDIS_URL": VALKEY.unix_url,
}
if _database := os.environ.get("SLUICE_TEST_DATABASE_URL"):
    os.environ["DATABASE_URL"] = _database
# Named here and not in pyproject.toml: pytest-django would read the settings before this file is.
os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
django.setup()
# pytest-xdist's workers inherit this environment: with the name in it, pytest-django would read the settings there
# before this file has given the worker servers of its own, and all workers would share one Redis.
del os.environ["DJANGO_SETTINGS_MODULE"]
assert VALKEY.unix_url == django.conf.settings.REDIS_URL
from tests.support import flushes, static_files  # noqa: E402 - they read models and settings

flushes.install()
static_files.install()
# A slow hash is for real passwords.
django.conf.settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs a service that this machine lacks is skipped, and says so."""
    lacking = {
        "postgres": "" if postgres_binaries() else "no PostgreSQL is installed",
        "browser": "" if chromium() else "no Chromium is installed",
    }
    for item in items:
        for marker, why in lacking.items():
            if why and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """SQLite in a file, as in production: the in-memory one locks differently when threads share it."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        path = ROOT / "test.sqlite3"
        copy_sqlite(path)
        database.setdefault("TEST", {})["NAME"] = str(path)


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The SQLite file is there, with its tables, and goes with `ROOT`."""
    from django.conf import settings

    return str(settings.DATABASES["default"]["ENGINE"]).endswith("sqlite3")


@pytest.fixture(autouse=True)
def _fresh_snapshots() -> None:
    """Each test has rows of its own, whose versions begin anew: what was read for the last one is worth nothing."""
    from queues.testing import fresh_configuration

    fresh_configuration()


@pytest.fixture(scope="session")
def valkey_server() -> Server:
    """The server that Django's settings point to, too."""
    return VALKEY


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database of a private PostgreSQL cluster; for tests that are marked `postgres`."""
    with run_postgres() as url:
        yield url
