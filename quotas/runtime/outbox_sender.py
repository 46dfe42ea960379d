"""A thread beside the leading dispatcher that sends the rows of an outbox, several at a time.

Each try runs in a thread of its own. The threads are shared: a receiver gets `PER_RECEIVER` of them, a tenant half, and
all receivers that were slow at their last try together half as well. So neither one receiver that never answers nor
many of them delay what goes to others.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from quotas import events
from quotas.runtime import background
from quotas.runtime.outbox import Outbox, Row

log = structlog.get_logger(__name__)

POLL_INTERVAL, IDLE_INTERVAL = 0.5, 2.0
"""Seconds between two looks for rows; the second where there was none in the last `BUSY`, and no call of `look_now`."""
BUSY = 30.0
AT_ONCE = 16
"""Tries that run at once."""
PER_RECEIVER = 2
"""Of them, to one receiver: further ones wait until it has answered."""
SHARE = AT_ONCE // 2
"""Of them, for one tenant, and to slow receivers together."""
SLOW_TRY = 3.0
"""Seconds from which on a try counts as slow."""
REMEMBERED = 500
"""Slow receivers that are remembered."""


class OutboxSender(Generic[Row]):
    """Sends while `leads` returns true. `name` is the thread's."""

    def __init__(self, leads: Callable[[], bool], outbox: Outbox[Row], name: str) -> None:
        self._leads = leads
        self._outbox = outbox
        self._stopping = threading.Event()
        self._look = threading.Event()
        """A look is due, or the thread has to stop."""
        self._begun_at = float("-inf")
        self._changed = threading.Condition()
        self._underway: Counter[str] = Counter()
        self._tenants: Counter[int] = Counter()
        self._slow: OrderedDict[str, None] = OrderedDict()
        self._name = name
        self._thread: threading.Thread | None = None

    @property
    def underway(self) -> Counter[str]:
        """How many tries run at present, by receiver."""
        with self._changed:
            return Counter(self._underway)

    def underway_of(self, tenant: int) -> int:
        """How many tries run at present for this tenant."""
        return self._tenants[tenant]

    def join(self) -> None:
        """After `stop`: wait until no new try can begin."""
        if self._thread is not None:
            self._thread.join()

    def start(self) -> None:
        self._thread = background.start(self._name, self._turn, self._stopping, vital=True)

    def stop(self) -> None:
        """Begin no further delivery. Those in progress are not waited for: they are tried again when their claims end."""
        self._stopping.set()
        self._look.set()

    def look_now(self) -> None:
        """There may be a new row: look for it at once."""
        self._look.set()

    def _turn(self) -> None:
        begun = 0
        self._look.clear()
        if self._leads():
            try:
                close_old_connections()
                begun = self.begin_some()
            except (DatabaseError, InterfaceError) as error:
                events.emit(events.ServiceUnavailable(self._name, "reading its rows", type(error).__name__))
        if begun:
            self._begun_at = time.monotonic()
        elif not self._stopping.is_set():
            self._look.wait(POLL_INTERVAL if time.monotonic() - self._begun_at < BUSY else IDLE_INTERVAL)

    def begin_some(self) -> int:
        """Begin as many as there is room for; how many that were. Waits for room, half a second at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._underway.total() < AT_ONCE, timeout=POLL_INTERVAL)
            room = AT_ONCE - self._underway.total()
            receivers, tenants = self._full_receivers(), self._full_tenants()
        begun = 0
        for row in self._outbox.due(room, receivers, tenants) if room else ():
            receiver, tenant = self._outbox.receiver(row), self._outbox.tenant(row)
            with self._changed:
                if receiver in self._full_receivers() or tenant in self._full_tenants():
                    continue
                self._count(receiver, tenant, 1)
            if not self._claimed(row, receiver, tenant):
                continue
            threading.Thread(
                target=self._send, args=(row, receiver, tenant), name=f"{self._name}-try", daemon=True
            ).start()
            begun += 1
        return begun

    def _full_receivers(self) -> set[str]:
        """Receivers that get nothing more now."""
        full = {receiver for receiver, count in self._underway.items() if count >= PER_RECEIVER}
        if sum(count for receiver, count in self._underway.items() if receiver in self._slow) >= SHARE:
            full |= self._slow.keys()
        return full

    def _full_tenants(self) -> set[int]:
        return {tenant for tenant, count in self._tenants.items() if count >= SHARE}

    def _claimed(self, row: Row, receiver: str, tenant: int | None) -> bool:
        """Whether this process has claimed the row; if not, its thread is free again."""
        claimed = False
        try:
            claimed = self._outbox.claim(row)
        finally:
            if not claimed:
                self._end(receiver, tenant)
        return claimed

    def _send(self, row: Row, receiver: str, tenant: int | None) -> None:
        began = time.monotonic()
        try:
            self._outbox.send(row)
        except DatabaseError as error:
            log.warning(
                "outbox.result_not_written", outbox=self._name, error=type(error).__name__
            )  # tried again when its claim ends
        except Exception:
            log.exception("outbox.fault", outbox=self._name, row=row.pk)
        finally:
            connections.close_all()
            self._end(receiver, tenant, seconds=time.monotonic() - began)

    def _end(self, receiver: str, tenant: int | None, *, seconds: float | None = None) -> None:
        with self._changed:
            self._count(receiver, tenant, -1)
            if seconds is not None:
                self._slow.pop(receiver, None)
                if seconds >= SLOW_TRY:
                    self._slow[receiver] = None
                if len(self._slow) > REMEMBERED:
                    self._slow.popitem(last=False)
            self._changed.notify_all()

    def _count(self, receiver: str, tenant: int | None, by: int) -> None:
        self._underway[receiver] += by
        if not self._underway[receiver]:
            del self._underway[receiver]
        if tenant is not None:
            self._tenants[tenant] += by
            if not self._tenants[tenant]:
                del self._tenants[tenant]
