"""Django's SQLite back end, whose write transactions take turns at a lock of the file's own.

SQLite admits one writer at a time. The others sleep, longer each time, up to a tenth of a second. Under load they
oversleep, some of them again and again. Here a transaction first takes a lock beside the database and tries to get it every
half millisecond. SQLite's own lock still protects the data: a program that does not use the lock (the `sqlite3` shell, a
backup) is safe and makes the others wait as before.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import IO

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

LOCK_POLL_INTERVAL = 0.0005
"""Seconds between two tries to get the lock."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to SQLite. `OPTIONS["timeout"]` (seconds) bounds the wait for a turn, too."""

    _turn: IO[bytes] | None = None
    """The open lock file. Closing it, or losing this connection, releases the lock."""
    _file: tuple[int, int] | None = None
    """The file that is open."""

    def connect(self) -> None:
        super().connect()
        self._file = self._present_file()

    def close_if_unusable_or_obsolete(self) -> None:
        """Also where another file has taken the place of the connection's."""
        if self.connection is not None and not self.in_atomic_block and self._file != self._present_file():
            self.close()
        super().close_if_unusable_or_obsolete()

    def _present_file(self) -> tuple[int, int] | None:
        """Device and number of the file; None if there is none."""
        try:
            found = os.stat(self.settings_dict["NAME"])
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino

    def _start_transaction_under_autocommit(self) -> None:
        self._take_turn()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._end_turn()
            raise

    def _take_turn(self) -> None:
        if self._turn is None:
            if self.is_in_memory_db():
                return
            self._turn = open(f"{self.settings_dict['NAME']}-turn", "ab")  # noqa: SIM115
        deadline = time.monotonic() + self.settings_dict["OPTIONS"].get("timeout", 5.0)
        while True:
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OperationalError("database is locked") from None
                time.sleep(LOCK_POLL_INTERVAL)

    def _end_turn(self) -> None:
        if self._turn is not None:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]  # where this fails, Django rolls back, and that ends the turn
        self._end_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            if self._turn is not None:
                self._turn.close()
                self._turn = None
