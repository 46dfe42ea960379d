"""`submit`: submits a file of JSON lines as one batch, with progress; it may be interrupted and run again."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from argparse import ArgumentParser
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, close_old_connections
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from queues.errors import FieldError, InvalidJob, QueueDraining, QueueError, QueueFull, QueueTooSmall
from queues.models import Batch
from queues.selectors.batches import batch_progress
from queues.services import batches
from queues.services.callbacks import check_url
from queues.services.draft import check
from queues.specs import JobSpec, read_job
from queues.states import FINAL, Status
from quotas import clock
from quotas.models import Project
from quotas.rest.fingerprints import fingerprint

SLICE = 1000
"""Jobs accepted in one transaction."""
FULL_QUEUE_PAUSE = 1.0
"""Seconds between two checks of a full queue."""
PROGRESS_INTERVAL = 0.5


pause = time.sleep
"""A name of its own, so that a test can act in the pauses of this command alone."""


class Command(BaseCommand):
    help = "Submit the jobs of a JSONL file, one job per line, as one batch. Run again, it continues where it stopped."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="one job per line, as in POST /api/v1/jobs; - for standard input")
        parser.add_argument("--project", required=True)
        parser.add_argument("--queue", default=None, help="for lines that name none")
        parser.add_argument(
            "--type", default=None, help="for lines that name none; the line is then the payload unless it has one"
        )
        parser.add_argument("--name", default=None, help="the batch's name; another name submits the same file anew")
        parser.add_argument("--wait", action="store_true", help="follow until the end; exit 1 if any job died")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']!r}.")
        content = self._read(options["file"])
        specs = list(self._specs(content, options))
        if not specs:
            raise CommandError("The file contains no job.")
        name = options["name"] or ("stdin" if options["file"] == "-" else Path(options["file"]).name)
        identity = hashlib.blake2b(
            content + f"\x00{name}\x00{options['queue']}\x00{options['type']}".encode(), digest_size=16
        ).hexdigest()
        try:
            batch = self._batch(project, name, identity)
            console = Console(file=sys.stdout)
            self._submit(project, batch, specs, identity, console)
            self.stdout.write(f"batch {batch.uid}: {len(specs):,} jobs accepted")
            if options["wait"]:
                self._follow(batch, console)
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. Nothing is lost: the same command continues where this one stopped.", returncode=130
            ) from None

    @staticmethod
    def _read(name: str) -> bytes:
        try:
            return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}") from None

    def _specs(self, content: bytes, options: dict[str, Any]) -> Iterator[JobSpec]:
        """The jobs of the file, all checked before the first is accepted."""
        for number, line in enumerate(content.removeprefix(BOM_UTF8).split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line.decode(), parse_constant=_no_constant, parse_float=_finite)
                if isinstance(data, dict):
                    if options["type"] and "type" not in data:
                        data = {"type": options["type"], **(data if "payload" in data else {"payload": data})}
                    if options["queue"] and "queue" not in data:
                        data = {**data, "queue": options["queue"]}
                spec = read_job(data)
                if spec.project not in (None, options["project"]):
                    raise InvalidJob([FieldError("/project", f"This batch is for {options['project']!r}.")])
                if spec.batch is not None:
                    raise InvalidJob([FieldError("/batch", "The file is its own batch.")])
                check_url(spec.callback_url, "/callback_url")
                check(spec, options["project"])
            except UnicodeDecodeError:
                raise CommandError(f"line {number}: is not UTF-8") from None
            except RecursionError:
                raise CommandError(f"line {number}: is nested too deeply") from None
            except ValueError as error:
                raise CommandError(f"line {number}: is no JSON: {error}") from None
            except InvalidJob as error:
                raise CommandError(f"line {number}: {error}") from None
            yield replace(spec, digest=spec.digest or fingerprint(data))

    @staticmethod
    def _batch(project: Project, name: str, identity: str) -> Batch:
        """The batch of this very file, made now or by an earlier run."""
        made, _ = Batch.objects.get_or_create(
            project=project,
            idempotency_key=f"file:{identity}",
            defaults={"name": name[:200], "open": True, "created_at": clock.now()},
        )
        return made

    def _submit(self, project: Project, batch: Batch, specs: list[JobSpec], identity: str, console: Console) -> None:
        """Accept slice by slice; each line has an idempotency key of its own, so that a second run doubles nothing."""
        if not batch.open:
            return
        keyed = [
            replace(spec, idempotency_key=spec.idempotency_key or f"{identity}:{number}")
            for number, spec in enumerate(specs, 1)
        ]
        with _progress(console) as progress:
            task = progress.add_task("submitting", total=len(keyed), rate="", left="")
            begun = time.monotonic()
            done = 0
            while done < len(keyed):
                done += self._accept(project, batch, keyed[done : done + SLICE], done)
                progress.update(
                    task, completed=done, **_pace(done, len(keyed), done / max(time.monotonic() - begun, 0.001))
                )
        batches.seal(batch)

    @staticmethod
    def _accept(project: Project, batch: Batch, part: list[JobSpec], start: int) -> int:
        """Accept as much of `part` as there is room for, from its beginning; how many that was."""
        while True:
            try:
                batches.submit_bulk(project, part, uid=batch.uid, stays_open=True)
                return len(part)
            except QueueTooSmall as error:
                if len(part) == 1:
                    raise CommandError(str(error)) from None
                part = part[: len(part) // 2]
            except QueueFull as error:
                if len(part) > 1:
                    part = part[: len(part) // 2]
                else:
                    pause(min(error.retry_after, FULL_QUEUE_PAUSE))  # backpressure: the rest comes when there is room
            except QueueDraining as error:
                raise CommandError(str(error)) from None
            except InvalidJob as error:
                raise CommandError("; ".join(_line(item, start) for item in error.errors[:5])) from None
            except QueueError as error:
                raise CommandError(str(error)) from None

    def _follow(self, batch: Batch, console: Console) -> None:
        """Show progress until every job has ended."""
        signal.signal(signal.SIGTERM, _interrupt)
        with _progress(console) as progress:
            task = progress.add_task("running", total=batch_progress(batch).total, rate="", left="")
            begun, before = time.monotonic(), None
            while True:
                try:
                    close_old_connections()
                    facts = batch_progress(batch)
                except DatabaseError as error:
                    progress.console.print(f"waiting for the database: {type(error).__name__}")
                    pause(2)
                    continue
                ended = sum(facts.totals[status] for status in FINAL)
                before = ended if before is None else before
                rate = facts.rate or (ended - before) / max(time.monotonic() - begun, 0.001)
                pace = _pace(ended, facts.total, rate, facts.binding)
                progress.update(task, completed=ended, total=facts.total, **pace)
                if ended == facts.total:
                    break
                pause(PROGRESS_INTERVAL)
        totals = facts.totals
        shown = ", ".join(f"{count:,} {status}" for status, count in totals.items() if count)
        self.stdout.write(f"batch {batch.uid}: {shown}")
        if totals[Status.DEAD]:
            raise CommandError(
                f"{totals[Status.DEAD]:,} jobs died; see the dead letters of project {batch.project.slug}.",
                returncode=1,
            )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text} is no finite number")
    return number


def _line(error: FieldError, start: int) -> str:
    parts = error.pointer.split("/")
    if len(parts) > 2 and parts[1] == "jobs" and parts[2].isdigit():
        return f"job {start + int(parts[2]) + 1} /{'/'.join(parts[3:])}: {error.detail}"
    return f"{error.pointer}: {error.detail}"


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _pace(done: int, total: int, rate: float, binding: str | None = None) -> dict[str, Any]:
    left = f"{_span((total - done) / rate)} left" if rate and done < total else ""
    return {"rate": f"{rate:,.1f}/s", "left": f"{left} · {binding}" if binding and done < total else left}


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        refresh_per_second=4,
    )
