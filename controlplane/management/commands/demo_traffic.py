"""`manage.py demo_traffic`: the demonstration's configuration and load; `up --demo` runs it."""

from __future__ import annotations

import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from controlplane import config
from controlplane.demo import calls, traffic
from quotas.services import actors

CONFIGURATION = Path(traffic.__file__).with_name("configuration.yaml")


class Command(BaseCommand):
    help = "Apply the demonstration's configuration and make some load against the simulator, until stopped."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--simulator", type=int, required=True, metavar="PORT", help="The simulator's port.")
        parser.add_argument("--url", help="The web server's address: calls go through its gateway, too.")

    def handle(self, *args: Any, simulator: int, url: str | None, **options: Any) -> None:
        for number in (1, 2, 3):
            os.environ.setdefault(f"SLUICE_DEMO_KEY_{number}", f"demo-{secrets.token_hex(8)}")
        text = CONFIGURATION.read_text().replace("{port}", str(simulator))
        changes = config.apply(text, actor=actors.command_line())
        self.stdout.write(config.summary(changes))
        if url:
            calls.start(url, actors.command_line())
        traffic.run()
