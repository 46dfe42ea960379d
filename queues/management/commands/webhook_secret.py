"""`webhook_secret`: shows a project's webhook secret."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from queues.services.callbacks import secret_of
from quotas.models import Project


class Command(BaseCommand):
    help = "Print the secret with which callbacks of a project are signed (Standard Webhooks); it is made at first use."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']!r}.")
        self.stdout.write(secret_of(project))
