"""`manage.py apply FILE|-|preset:NAME [--dry-run] [--prune]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane import config
from controlplane.paths import PACKAGE_DIR
from quotas.services import actors

PRESETS = PACKAGE_DIR / "presets"


def preset_names() -> list[str]:
    """Names of the ready-made configurations, in order."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def source(name: str) -> Path:
    """The file that `name` means: a path, or `preset:NAME`. Raises CommandError for a preset that doesn't exist."""
    if not name.startswith("preset:"):
        return Path(name)
    preset = name.removeprefix("preset:")
    if preset not in preset_names():
        raise CommandError(f"There is no preset {preset!r}. Presets: {', '.join(preset_names())}.")
    return PRESETS / f"{preset}.yaml"


class Command(BaseCommand):
    help = "Bring the configuration to what a YAML file says; a mistake names its line and changes nothing."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE|-|preset:NAME", help=f"presets: {', '.join(preset_names())}")
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
        parser.add_argument("--prune", action="store_true", help="remove what the file's sections don't list")

        parser.add_argument(
            "--force", action="store_true", help="with --prune: also what is in use; unfinished jobs are cancelled"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file, dry_run = options["file"], options["dry_run"]
        if options["force"] and not options["prune"]:
            raise CommandError("--force has a meaning only with --prune.")
        try:
            text = sys.stdin.buffer.read() if file == "-" else source(file).read_bytes()
            changes = config.apply(
                text.decode("utf-8-sig"),
                actor=actors.command_line(),
                dry_run=dry_run,
                prune=options["prune"],
                force=options["force"],
            )
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise CommandError(f"{file}: line {line}: not UTF-8") from None
        except config.ConfigInvalid as invalid:
            listed = "\n".join(f"{file}: {mistake}" for mistake in invalid.mistakes)
            raise CommandError(f"{listed}\nNothing was changed.") from None
        for change in changes:
            self.stdout.write(str(change))
        self.stdout.write(config.summary(changes) + (" (dry run: nothing was changed)" if dry_run and changes else ""))
