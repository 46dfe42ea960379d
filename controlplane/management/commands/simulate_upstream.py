"""`manage.py simulate_upstream`: a local provider with real limits per key, headers and 429 bodies."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.simulator import options, server


class Command(BaseCommand):
    """Simulates a provider until it is stopped; needs neither the database nor Redis."""

    help = "A local provider with real limits per key. Counts at GET /_stats; faults at POST /_faults."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        options.add_arguments(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        try:
            settings = options.settings_from(given)
        except ValueError as error:
            raise CommandError(str(error)) from None
        try:
            if given["die_with_parent"]:
                server.die_with_parent()
            server.run(settings, given["host"], given["port"], self._say_ready)
        except OSError as error:
            raise CommandError(f"cannot listen on {given['host']}:{given['port']}: {error}") from None

    def _say_ready(self, url: str) -> None:
        self.stdout.write(f"ready: {url}")
        self.stdout.flush()
