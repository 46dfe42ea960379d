"""Writers of SQLite take turns: no writer waits longer than the turn lasts, a dead owner of the lock blocks no other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

HOLD = """
import sys, time
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "controlplane.sqlite3", "NAME": sys.argv[1],
    "OPTIONS": {"transaction_mode": "IMMEDIATE"}}})
from django.db import connection, transaction
with transaction.atomic():
    connection.cursor().execute("INSERT INTO written VALUES ('locked')")
    print("holding", flush=True)
    time.sleep(600)
"""


def connect(path: Path, seconds: float = 20.0) -> BaseDatabaseWrapper:
    settings = {
        "ENGINE": "controlplane.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": seconds},
    }
    return ConnectionHandler({"default": settings})["default"]


@pytest.fixture(autouse=True)
def _own_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "turns.sqlite3"
    connection = connect(path)
    connection.cursor().execute("PRAGMA journal_mode=WAL")
    connection.cursor().execute("CREATE TABLE written (what TEXT)")
    connection.close()
    return path


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a transaction."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write(connection: BaseDatabaseWrapper, what: str) -> None:
    connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    try:
        connection.cursor().execute("INSERT INTO written VALUES (%s)", [what])
        connection.commit()
    finally:
        connection.set_autocommit(True)


def rows_of(path: Path) -> list[str]:
    connection = connect(path)
    with connection.cursor() as cursor:
        cursor.execute("SELECT what FROM written ORDER BY rowid")
        rows = [row[0] for row in cursor.fetchall()]
    connection.close()
    return rows


def test_a_wait_longer_than_the_timeout_is_an_error(path: Path, holder: subprocess.Popen[str]) -> None:
    connection = connect(path, 0.2)
    with pytest.raises(OperationalError, match="locked"):
        write(connection, "impatient")
    connection.close()
    assert rows_of(path) == []


def test_a_killed_holder_frees_the_turn_and_leaves_nothing_behind(path: Path, holder: subprocess.Popen[str]) -> None:
    written = threading.Event()

    def patient() -> None:
        connection = connect(path, 60.0)
        write(connection, "patient")
        connection.close()
        written.set()

    thread = threading.Thread(target=patient)
    thread.start()
    assert not written.wait(0.3)
    holder.kill()
    assert written.wait(30)
    thread.join()
    assert rows_of(path) == ["patient"]


def test_a_transaction_that_fails_gives_the_turn_up(path: Path) -> None:
    first, second = connect(path), connect(path, 0.2)
    first.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    first.cursor().execute("INSERT INTO written VALUES ('undone')")
    first.rollback()
    first.set_autocommit(True)
    write(second, "done")
    first.close()
    second.close()
    assert rows_of(path) == ["done"]


def test_threads_that_write_side_by_side_all_come_through(path: Path) -> None:
    def writer(name: str) -> None:
        connection = connect(path)
        for number in range(50):
            write(connection, f"{name}{number}")
        connection.close()

    threads = [threading.Thread(target=writer, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.1))
    assert sorted(rows_of(path)) == sorted(f"{name}{number}" for name in "abcdefgh" for number in range(50))


def test_a_connection_whose_file_was_replaced_is_closed(path: Path, tmp_path: Path) -> None:
    """It would write into a file that nobody reads any more."""
    connection = connect(path)
    connection.settings_dict["CONN_MAX_AGE"] = None
    connection.cursor().execute("INSERT INTO written VALUES ('before')")
    kept = connection.connection
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is kept
    restored = tmp_path / "restored.sqlite3"
    other = connect(restored)
    other.cursor().execute("CREATE TABLE written (what TEXT)")
    other.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    restored.rename(path)
    connection.close_if_unusable_or_obsolete()
    cursor = connection.cursor()
    cursor.execute("SELECT * FROM written")
    assert cursor.fetchall() == []
    connection.close()
