"""`manage.py apikey create | list | revoke`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from quotas import clock, durations
from quotas.models import ApiKey, Project
from quotas.models.api_key import SCOPES
from quotas.services import actors, api_keys


class Command(BaseCommand):
    help = "Make, list and revoke API keys."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key; it is printed once, on a line of its own")
        create.add_argument("--name", required=True)
        bound = create.add_mutually_exclusive_group(required=True)
        bound.add_argument("--project", metavar="SLUG")
        bound.add_argument("--platform", action="store_true", help="for every project")
        create.add_argument("--scopes", required=True, help=f"comma-separated: {','.join(SCOPES)}")
        create.add_argument("--expires", metavar="30d", help="time until it expires; default: never")
        listing = actions.add_parser("list", help="all keys, newest first, without their secrets")
        listing.add_argument("--project", metavar="SLUG")
        revoke = actions.add_parser("revoke", help="refuse a key from now on")
        revoke.add_argument("key", metavar="KEY", help="its prefix, as in sl_<prefix>_..., or the whole key")
        revoke.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, options["action"])(options)

    def create(self, options: dict[str, Any]) -> None:
        expires_at = None
        try:
            if options["expires"] is not None:
                expires_at = clock.now() + timedelta(seconds=durations.parse(options["expires"]))
            project = self._project(options["project"]) if options["project"] is not None else None
            scopes = [scope.strip() for scope in options["scopes"].split(",") if scope.strip()]
            _, token = api_keys.create(
                options["name"], scopes, project=project, expires_at=expires_at, actor=actors.command_line()
            )
        except (durations.BadDuration, api_keys.UnknownScope, OverflowError) as error:
            raise CommandError(str(error)) from None
        self.stderr.write("The key is shown this once:")
        self.stdout.write(token)

    def list(self, options: dict[str, Any]) -> None:
        keys = ApiKey.objects.select_related("project")
        if options["project"]:
            keys = keys.filter(project=self._project(options["project"]))
        now = clock.now()
        for key in keys:
            expired = key.expires_at is not None and key.expires_at <= now
            state = "revoked" if key.revoked_at else "expired" if expired else "active"
            used = f"{key.last_used_at:%Y-%m-%dT%H:%MZ}" if key.last_used_at else "never used"
            bound = key.project.slug if key.project else "(platform)"
            self.stdout.write(f"{key.prefix}  {state:8} {bound:20} {','.join(key.scopes)}  {used}  {key.name}")

    def revoke(self, options: dict[str, Any]) -> None:
        given = options["key"]
        prefix = given.split("_")[1] if given.startswith("sl_") else given
        key = ApiKey.objects.select_related("project").filter(prefix=prefix).first()
        if key is None:
            raise CommandError(f"There is no key with the prefix {prefix!r}; `apikey list` shows them.")
        if not api_keys.revoke(key, actor=actors.command_line(), reason=options["reason"]):
            raise CommandError(f"{key} was revoked before.")
        self.stdout.write(f"revoked {key}")

    def _project(self, slug: str) -> Project:
        found = Project.objects.filter(slug=slug).first()
        if found is None:
            raise CommandError(f"There is no project {slug!r}.")
        return found
