"""`manage.py rotate_credentials`."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from quotas.services import actors, credentials


class Command(BaseCommand):
    help = (
        "Encrypt all stored credentials with the first key of SLUICE_CREDENTIAL_KEYS. Put a new key in front, restart, "
        "run this, then take the old key away."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = credentials.rotate(actor=actors.command_line(), reason=options["reason"])
        except (credentials.Unreadable, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{done} stored credentials are encrypted with the newest key")
