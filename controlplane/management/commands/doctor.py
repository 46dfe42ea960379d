"""`manage.py doctor`: what is wrong with this instance, and what to do."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.doctor import Level, examine

MARKS = {Level.OK: "ok  ", Level.WARNING: "warn", Level.ERROR: "FAIL"}


class Command(BaseCommand):
    help = "Check settings, SQL, Redis, dispatcher, workers and keys. Exits 1 where something must be done."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        errors = 0
        for finding in examine():
            self.stdout.write(f"{MARKS[finding.level]}  {finding.subject}: {finding.detail}")
            if finding.remedy:
                self.stdout.write(f"      → {finding.remedy}")
            errors += finding.level is Level.ERROR
        if errors:
            raise CommandError(f"{errors} must be put right.")
