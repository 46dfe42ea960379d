"""`dispatch`: runs the dispatcher. Several may run: one leads, the others stand by."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from queues.dispatcher.admission import Admissions
from queues.dispatcher.dispatcher import Dispatcher
from queues.maintenance.runner import Maintenance
from queues.services import callbacks
from quotas import events
from quotas.runtime.connection import accounts, be_patient, limiter
from quotas.runtime.outbox_sender import OutboxSender


class Command(BaseCommand):
    help = "Release jobs that may run now. Several may run: one leads, the others stand by."
    requires_system_checks: list[str] = []
    """They would load every page, of which this process has none."""

    def handle(self, *args: Any, **options: Any) -> None:
        be_patient()
        dispatcher = Dispatcher(Admissions(accounts(), limiter()), Maintenance())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: dispatcher.stop())

        def leads() -> bool:
            return dispatcher.leader.token is not None

        callback_sender = OutboxSender(leads, callbacks.outbox, "callbacks")
        dispatcher.on_wakeup = (
            callback_sender.look_now
        )  # the end of a job wakes the dispatcher, and may have written a callback
        callback_sender.start()
        events.emit(events.ProcessStarted("dispatcher", leads))
        dispatcher.run()
        callback_sender.stop()
