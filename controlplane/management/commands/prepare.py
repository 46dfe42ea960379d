"""`manage.py prepare`: migrate the database and create what every instance has."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from controlplane import first_start
from queues.services.defaults import create_defaults


class Command(BaseCommand):
    help = "Migrate, create the default queues, and at the first time an administrator and a platform key."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.EMBEDDED_SQL:
            settings.INSTANCE.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        call_command("migrate", interactive=False, verbosity=0)
        create_defaults()
        path = settings.INSTANCE.credentials_path
        if first_start.make_credentials(path):
            # Not the credentials themselves: what is printed here goes into log files.
            self.stdout.write(f"First credentials written to {path}")
