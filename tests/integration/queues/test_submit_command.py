"""`manage.py submit`, called in this process: room in the queue, files of all kinds, run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from queues.management.commands import submit as command
from queues.models import Batch, Job
from tests.integration.queues.desk import Desk


def written(path: Path, count: int, **fields: Any) -> str:
    lines = [json.dumps({"type": "test.echo", "payload": {"n": n}, **fields}) for n in range(count)]
    path.write_text("\n".join(lines))
    return str(path)


def test_a_file_goes_into_a_queue_that_holds_less_than_it(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.project()
    desk.queue("small", max_size=3)
    worker = desk.worker()
    monkeypatch.setattr(command, "pause", lambda seconds: desk.run_until_done(worker))
    file = written(tmp_path / "jobs.jsonl", 10, queue="small")
    call_command("submit", file, "--project", "acme")
    desk.run_until_done(worker)
    call_command("submit", file, "--project", "acme", "--wait")
    assert sorted(job.payload["n"] for job in Job.objects.all()) == list(range(10))
    assert [job.payload["n"] for job in Job.objects.order_by("pk")] == list(range(10)), "in the file's order"
    assert Batch.objects.get().finished_at is not None


def test_a_queue_that_holds_none_is_no_use(desk: Desk, tmp_path: Path) -> None:
    desk.project()
    desk.queue("none", max_size=0)
    with pytest.raises(CommandError, match="has room for 0 jobs"):
        call_command("submit", written(tmp_path / "jobs.jsonl", 4, queue="none"), "--project", "acme")
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"type": "http.request", "payload": {"path": NaN}}', "NaN"),
        ('{"type": "http.request", "delay": 1e999}', "1e999"),
        ('{"type": "http.request", "delay": -1}', "/delay"),
        ("{", "JSON"),
        ("[]", "object"),
        ('{"type": "http.request", "nonsense": 1}', "/nonsense"),
        ('{"type": "http.request", "payload": {"path": "/\\u0000"}}', "/payload/path"),
        ('{"type": "http.request", "queue": "nowhere", "payload": {"path": "/"}}', "queue"),
        ('{"type": "http.request", "payload": {"path": "//evil"}}', "/payload/path"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_accepted(desk: Desk, tmp_path: Path, bad: str, words: str) -> None:
    desk.project()
    file = tmp_path / "bad.jsonl"
    good = json.dumps({"type": "test.echo"})
    file.write_text("\n".join([good] * 16 + [bad, good]))
    with pytest.raises(CommandError) as refused:
        call_command("submit", str(file), "--project", "acme")
    assert "line 17" in str(refused.value) and words in str(refused.value)
    assert not Job.objects.exists() and not Batch.objects.exists()


def test_a_byte_order_mark_and_foreign_line_ends_are_no_matter(desk: Desk, tmp_path: Path) -> None:
    desk.project()
    file = tmp_path / "foreign.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"type": "test.echo"}\r\n\r\n{"type": "test.echo"}\r\n')
    call_command("submit", str(file), "--project", "acme")
    assert Job.objects.count() == 2
