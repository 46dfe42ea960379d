"""Whose pool it is: a pool with `projects` does not exist for others, and no project reads of others' calls."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission

from queues import config
from queues.models import Job, Queue
from queues.services.defaults import create_defaults
from quotas import UnknownPool, pools
from quotas.models import Account, Pool, Project
from tests.integration.quotas.api.conftest import api
from tests.integration.quotas.api.test_pools import acquire, make_pool, settle

WHO = ["platform", "acme", "zeta"]


@pytest.fixture
def shared(settings: Any) -> None:
    """A pool for all, one for acme, one for no project; the first falls back to the others."""
    for slug in ("acme", "zeta"):
        Project.objects.get_or_create(slug=slug, defaults={"name": slug})
    make_pool("open", accounts=1, fallback=["theirs", "closed"])
    make_pool("theirs", accounts=1, projects=["acme"])
    make_pool("closed", accounts=1, projects=[])
    for row in Account.objects.all():
        row.credential = f"key-of-{row.name}"  # type: ignore[assignment]
        row.save()
    create_defaults()
    config.snapshot.clear()


def caller(who: str) -> Any:
    return api(project=None if who == "platform" else who)


SEEN = {"platform": {"open", "theirs", "closed"}, "acme": {"open", "theirs"}, "zeta": {"open"}}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.usefixtures("shared")
def test_everything_about_a_pool_that_is_not_theirs_is_404(who: str) -> None:
    one = caller(who)
    for name in ("open", "theirs", "closed", "none"):
        account = Account.objects.filter(pool__name=name).first()
        pk = account.pk if account else 999
        answers = [
            one.get(f"pools/{name}"),
            one.get(f"pools/{name}/explain"),
            one.get("accounts", pool=name),
            one.get(f"accounts/{pk}"),
            one.post(f"accounts/{pk}/clear-cooldown", {"reason": "x"}),
            one.post(f"pools/{name}/resume", {"reason": "x"}),
            one.post(f"pools/{name}/acquire", {}),
        ]
        expected = 200 if name in SEEN[who] else 404
        steering = 403 if name == "open" and who != "platform" else expected
        statuses = [expected] * 4 + [steering] * 2 + [expected]
        assert [answer.status_code for answer in answers] == statuses, name
        if expected == 404:
            missing = one.get("pools/none").json()
            assert one.get(f"pools/{name}").json() == {**missing, "detail": missing["detail"].replace("none", name)}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.usefixtures("shared")
def test_lists_and_names_of_others_pools(who: str) -> None:
    one = caller(who)
    assert {row["name"] for row in one.get("pools").json()["results"]} == SEEN[who]
    assert {row["pool"] for row in one.get("accounts").json()["results"]} == SEEN[who]
    body = one.get("pools/open")
    assert set(body.json()["fallback"]) == SEEN[who] - {"open"}
    for name in SEEN["platform"] - SEEN[who]:
        assert name not in body.content.decode() + one.get("pools/open/explain").content.decode()


@pytest.mark.parametrize("who", WHO)
@pytest.mark.usefixtures("shared")
def test_fallbacks_are_those_that_the_project_may_use(who: str) -> None:
    one = caller(who)
    found = []
    for _ in range(4):
        explained = one.get("pools/open/explain").json()
        answer = one.post("pools/open/acquire", {})
        assert (explained["status"], explained["chosen_pool"]) == (answer.status_code, answer.json().get("pool"))
        if answer.status_code != 200:
            break
        found.append(answer.json()["pool"])
        settle(one, answer.json()["lease"], status=429, headers={"Retry-After": "600"})
    assert found == [name for name in ("open", "theirs", "closed") if name in SEEN[who]]


@pytest.mark.parametrize("who", ["acme", "zeta"])
@pytest.mark.parametrize("body", [True, False])
@pytest.mark.usefixtures("shared")
def test_jobs(who: str, body: bool) -> None:
    """By the project that the job is for, not by the submitter; alone and in bulk."""
    for one, named in ((caller(who), {}), (caller("platform"), {"project": who})):
        for name in ("open", "theirs", "closed", "none"):
            job = {"type": "http.request", "payload": {"pool": name, "path": "/"}}
            if body:
                answer = one.post("jobs/bulk", {"batch": {"name": "b"}, "jobs": [{**job, **named}]})
            else:
                answer = one.post("jobs", {**job, **named})
            unknown = 400 if named else 404
            expected = 202 if name in SEEN[who] else unknown if name == "none" else 404
            assert answer.status_code == expected, (name, answer.content)
            if expected == 404:
                assert answer.json()["type"] == "/problems/unknown-pool"
                assert answer.json()["errors"][0]["pointer"].endswith("/payload/pool")
    assert set(Job.objects.values_list("pool", flat=True)) == SEEN[who]


@pytest.mark.usefixtures("shared")
def test_a_job_of_a_queue_whose_pool_is_others() -> None:
    Queue.objects.create(name="q", pool=Pool.objects.get(name="theirs"))
    config.snapshot.clear()
    job = {"type": "http.request", "queue": "q", "payload": {"path": "/"}}
    assert caller("acme").post("jobs", job).status_code == 202
    answer = caller("zeta").post("jobs", job)
    assert answer.status_code == 404 and "theirs" not in answer.content.decode()
    assert caller("zeta").get("queues/q").json()["pool"] is None
    assert caller("acme").get("queues/q").json()["pool"] == "theirs"


@pytest.mark.usefixtures("shared")
def test_python_callers_that_say_for_whom() -> None:
    for name, project in (("theirs", "zeta"), ("closed", "acme"), ("none", None)):
        with pytest.raises(UnknownPool):
            pools.get(name, project=project)
    with pools.get("open", project="zeta").acquire() as lease:
        lease.settle(status=429, headers={"Retry-After": "600"})
    with pytest.raises(pools.NoAccountAvailable) as refused:
        pools.get("open", project="zeta").acquire()
    assert refused.value.reasons == {"cooldown": 1}
    with pools.get("open", project="acme").acquire() as lease:
        assert lease.pool == "theirs"


def test_a_project_reads_no_texts_of_others_failures() -> None:
    make_pool(accounts=1)
    one = api()
    lease = acquire(one).json()["lease"]
    body = '{"error": {"message": "Bad thing in the prompt of another project"}}'
    settle(one, lease, status=500, headers={"x-ratelimit-limit-requests": "7"}, body=body)
    pk = Account.objects.get().pk
    paths = ("accounts", f"accounts/{pk}", "pools", "pools/llm", "pools/llm/explain")
    for path in paths:
        assert "Bad thing" not in api("read", project="acme").get(path).content.decode()
    row = api("read", project="acme").get(f"accounts/{pk}").json()
    assert (row["last_error"], row["last_answer"], row["errors"], row["state"]) == (
        "",
        None,
        {"server": 1},
        "available",
    )
    assert "Bad thing" in one.get(f"accounts/{pk}").json()["last_error"]


def test_a_project_members_session_reads_as_its_key_does(client: Any, django_user_model: Any) -> None:
    for name, slugs in (("llm", None), ("theirs", ["acme"]), ("closed", ["other"])):
        make_pool(name, accounts=1, projects=slugs)
    one = api()
    for name in ("llm", "theirs"):
        lease = one.post(f"pools/{name}/acquire", {}).json()["lease"]
        settle(one, lease, status=500, body='{"error": {"message": "Bad thing"}}')
    project, _ = Project.objects.get_or_create(slug="acme", defaults={"name": "acme"})
    user = django_user_model.objects.create_user("mia", password="x", is_staff=True)
    user.sluice_projects.add(project)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_account", "view_pool"]))
    client.force_login(user)
    found = client.get("/api/v1/accounts").json()["results"]
    assert {row["pool"] for row in found} == {"llm", "theirs"} and {row["last_error"] for row in found} == {""}
    assert {row["name"] for row in client.get("/api/v1/pools").json()["results"]} == {"llm", "theirs"}
    assert client.get("/api/v1/pools/closed").status_code == 404
