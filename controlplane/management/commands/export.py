"""`manage.py export`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from controlplane import config


class Command(BaseCommand):
    help = "Print the configuration as YAML, as `apply` reads it. It contains no credentials."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(config.export(), ending="")
