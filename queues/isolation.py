"""Isolates jobs from each other: a context of its own for each, and connections that no other job has used.

Context variables contain more than it seems: the active time zone and language of Django, the decimal context, structlog's
bound values. Connections keep open transactions, session settings, and whatever a restart of the server has broken.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import TypeVar

import structlog
from django.core.cache import caches
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

log = structlog.get_logger(__name__)
T = TypeVar("T")


def in_fresh_context(work: Callable[[], T]) -> T:
    """What `work` returns, run where every context variable has its default."""
    return Context().run(_and_close_caches, work)


def _and_close_caches(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        close_caches()


def close_caches() -> None:
    """Close the clients of caches, which belong to the context; never raises."""
    try:
        caches.close_all()
    except Exception as error:  # noqa: BLE001 - a backend of the user's may raise anything
        log.warning("isolation.cache_not_closed", error=type(error).__name__)


def close_connections() -> None:
    """Close this thread's connections to SQL, whatever state they are in; never raises."""
    for connection in connections.all(initialized_only=True):
        _discard(connection)


def refresh_connections() -> None:
    """Make this thread's connections fit for the next job of ours: discard what is broken or in a transaction, keep
    the others open. Never raises."""
    for connection in connections.all(initialized_only=True):
        try:
            if _is_clean(connection):
                connection.close_if_unusable_or_obsolete()
                continue
        except Exception as error:  # noqa: BLE001 - a backend of the user's may raise anything
            log.warning("isolation.connection_unusable", alias=connection.alias, error=type(error).__name__)
        _discard(connection)


def _is_clean(connection: BaseDatabaseWrapper) -> bool:
    if connection.in_atomic_block or connection.needs_rollback:
        return False
    if connection.connection is None:
        return True
    if connection.vendor == "sqlite":  # what a raw BEGIN has opened, Django knows nothing of
        in_transaction = connection.connection.in_transaction
    elif connection.vendor == "postgresql":
        in_transaction = connection.connection.info.transaction_status.value != 0  # 0: idle
    else:
        in_transaction = False
    return connection.get_autocommit() and not in_transaction


def _discard(connection: BaseDatabaseWrapper) -> None:
    """Close it, and let the next use of its alias make another one. The server rolls back what was open."""
    alias = connection.alias
    # Inside a block of `atomic`, `close` would only be noted for the end of the block.
    connection.in_atomic_block = False
    connection.savepoint_ids, connection.atomic_blocks, connection.run_on_commit = [], [], []
    try:
        connection.close()
    except Exception as error:  # noqa: BLE001 - a backend of the user's may raise anything
        log.warning("isolation.connection_not_closed", alias=alias, error=type(error).__name__)
    with suppress(AttributeError):
        del connections[alias]
