"""Suggestions of the search box, the count of new jobs, edited payloads, and the command that submits a job again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queues.models import Job, Queue
from queues.services import dead_letters
from quotas.services import api_keys
from tests.browser.seed import Day

SignIn = Callable[[str], Client]


def suggested(client: Client, term: str) -> list[str]:
    answer = client.get("/admin/queues/job/suggestions/", {"q": term})
    assert answer.status_code == 200
    found: list[str] = answer.json()["results"]
    return found


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("pr", ["project:"]), ("key", ["key."]), ("ag", ["age:"]), ("age:>", ["age:>10m", "age:>1h"]),
        ("queue:em", ["queue:embeddings"]), ("status:rat", ["status:rate_limited"]), ("project:a", ["project:acme"]),
        ("policy:user", ["policy:user-hourly"]), ("account:llm/a1", ["account:llm/a1"]), ("pool:l", ["pool:llm"]),
        ("batch:pack", ["'batch:package summaries'"]), ("user:CU", ["user:cust-3"]), ("key.chat:c", ["'key.chat:c 7'"]),
        ("type:globex", ["type:globex.secret"]), ("colour:r", []), ("error:50", []),
    ],
)  # fmt: skip
def test_a_term_is_completed(signed_in: SignIn, day: Day, term: str, expected: list[str]) -> None:
    Job.objects.filter(pk=day.dead.pk).update(user="cust-3", keys={"chat": "c 7"})
    assert suggested(signed_in("viewer"), term) == expected


def test_a_suggestion_finds_what_it_names(signed_in: SignIn, day: Day) -> None:
    Job.objects.filter(pk=day.dead.pk).update(user="it's me")
    client = signed_in("viewer")
    (term,) = suggested(client, "user:it")
    shown = client.get("/admin/queues/job/", {"q": f"{term} queue:batch"}).context["cl"].queryset
    assert [job.pk for job in shown] == [day.dead.pk]


def test_members_are_offered_nothing_of_others(signed_in: SignIn, day: Day) -> None:
    Job.objects.filter(project=day.globex).update(user="globex-user", keys={"chat": "g"})
    member = signed_in("member")
    for term in ("type:globex", "user:globex", "key.chat:g", "project:g", "pool:l", "account:l", "batch:globex"):
        assert suggested(member, term) == [], term
    assert suggested(member, "project:") == ["project:acme"]
    assert Client().get("/admin/queues/job/suggestions/").status_code == 302


def test_suggestions_ask_few_queries(signed_in: SignIn, day: Day) -> None:
    client = signed_in("viewer")
    for term in ("user:", "account:", "batch:", "qu"):
        with CaptureQueriesContext(connection) as asked:
            suggested(client, term)
        assert len(asked) <= 8, term


def test_new_jobs_are_counted_under_the_filters(signed_in: SignIn, day: Day) -> None:
    client = signed_in("member")
    page = client.get("/admin/queues/job/?q=queue:batch").content.decode()
    address = unescape(re.findall(r'hx-get="(\?[^"]*newer_than=\d+[^"]*)"', page)[0])
    assert client.get(f"/admin/queues/job/{address}").content.strip() == b""
    for project, queue in ((day.acme, "batch"), (day.acme, "embeddings"), (day.globex, "batch")):
        Job.objects.create(
            project=project, queue=Queue.objects.get(name=queue), type="t", payload={}, created_at=timezone.now()
        )
    pill = client.get(f"/admin/queues/job/{address}").content.decode()
    assert "1 new" in pill and "newer_than" not in pill
    for odd in ("-1", "abc", ""):
        assert client.get("/admin/queues/job/", {"newer_than": odd}).status_code == 200
    assert client.get("/admin/queues/job/?newer_than=0&nonsense=1").status_code == 400


def test_an_unknown_parameter_leads_to_the_whole_list(signed_in: SignIn, day: Day) -> None:
    answer = signed_in("viewer").get("/admin/queues/job/?nonsense=1")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/queues/job/?e=1")


def page_of(client: Client, job: Job) -> str:
    answer = client.get(f"/admin/queues/job/{job.pk}/change/")
    assert answer.status_code == 200
    return answer.content.decode()


def command_of(html: str) -> list[str]:
    found = re.search(r'<details id="curl">.*?<pre[^>]*>(.*?)</pre>', html, re.S)
    assert found is not None
    return shlex.split(unescape(found[1]))


def test_the_command_submits_the_same_job(signed_in: SignIn, day: Day) -> None:
    payload = {**day.dead.payload, "json": {"prompt": 'it\'s "quoted" & <b>bold</b>\nand $HOME `id`'}}
    Job.objects.filter(pk=day.dead.pk).update(payload=payload, user="cust-3", keys={"chat": "7"}, priority=2)
    words = command_of(page_of(signed_in("operator"), day.dead))
    assert words[:4] == ["curl", "-X", "POST", "http://testserver/api/v1/jobs"]
    body: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    token = api_keys.create("t", ["submit"], project=day.acme, actor="test", reason="test")[1]
    answer = Client().post(
        "/api/v1/jobs", body, content_type="application/json", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 202, answer.content
    made = Job.objects.get(uid=answer.json()["id"])
    assert (made.payload, made.user, made.keys, made.priority, made.queue_id) == (
        payload, "cust-3", {"chat": "7"}, 2, day.dead.queue_id,
    )  # fmt: skip


def test_neither_the_command_nor_the_difference_shows_secrets(signed_in: SignIn, day: Day) -> None:
    first = {**day.dead.payload, "headers": {"X-Api-Token": "sk-first"}, "path": "/v1/x?api_key=sk-query"}
    Job.objects.filter(pk=day.dead.pk).update(payload=first)
    second = {**first, "headers": {"X-Api-Token": "sk-second"}, "json": {"model": "<script>alert(1)</script>"}}
    dead_letters.replay(day.letter.pk, actor="user:root", reason="another model", payload=second)
    html = page_of(signed_in("operator"), day.dead)
    assert not re.search(r"sk-(first|second|query)", html) and "<script>alert(1)" not in html
    assert "Fill in what is hidden." in html
    difference = re.search(r'<pre class="sl-json sl-diff">(.*?)</pre>', html, re.S)
    assert difference is not None and "small" in difference[1] and "alert(1)" in difference[1]


def test_a_huge_payload_has_no_command(signed_in: SignIn, day: Day) -> None:
    Job.objects.filter(pk=day.dead.pk).update(payload={**day.dead.payload, "json": {"text": "x" * 50_000}})
    assert 'id="curl"' not in page_of(signed_in("operator"), day.dead)
