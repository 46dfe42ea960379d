"""What is in use is not removed; where it is ended with it, or was removed all the same, every job says why it waits."""

from __future__ import annotations

import io
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.test import Client

from controlplane import config
from queues.models import Attempt, Callback, DeadLetter, Job, Queue
from queues.selectors.batches import batch_progress
from queues.selectors.explanation import explain
from queues.services import batches, dead_letters
from queues.specs import read_job
from queues.states import Stage, Status
from queues.worker.running import perform
from quotas import clock
from quotas.models import Account, ApiKey, Policy, Pool, Project, Provider, Tier
from quotas.services import in_use
from tests.integration.queues.desk import Desk, failed, fresh

CALL = {"type": "http.request", "payload": {"pool": "llm", "path": "/"}}
PLAIN_CALL = {"type": "http.request", "payload": {"path": "/"}}


def apply(*, prune: bool = True, force: bool = False, dry_run: bool = False, **sections: Any) -> list[str]:
    text = yaml.safe_dump({"version": 1, **sections})
    return [str(change) for change in config.apply(text, actor="test", prune=prune, force=force, dry_run=dry_run)]


def refused(**sections: Any) -> str:
    with pytest.raises(config.ConfigInvalid) as invalid:
        apply(**sections)
    return str(invalid.value)


def only(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


def test_a_pool_that_jobs_name_stays(desk: Desk) -> None:
    desk.pool("llm")
    (job,) = desk.submit(**CALL)
    found = refused(pools=[])
    assert found == (
        "line 1, pools: pool 'llm' can't be removed: in use by 1 unfinished job; `--prune --force` cancels them"
    )
    assert apply(pools=[], prune=False) == []
    planned = apply(pools=[], force=True, dry_run=True)
    assert planned == ["- pool llm\n    1 unfinished job: cancels them"]
    assert fresh(job).status == Status.PENDING and Pool.objects.exists()
    assert apply(pools=[], force=True) == planned
    assert (fresh(job).status, fresh(job).reason) == (Status.CANCELLED, "cancelled by test: the pool llm was removed")
    assert not Pool.objects.exists()


def test_what_waited_for_cancelled_jobs_and_their_callbacks_follow(desk: Desk) -> None:
    desk.pool("llm")
    (job,) = desk.submit(**CALL, callback_url="http://127.0.0.1:9/")
    (next_one,) = desk.submit(after=[job.uid])
    apply(pools=[], force=True)
    assert fresh(next_one).status == Status.CANCELLED
    assert Callback.objects.get().event == "job.cancelled"


def test_a_pool_goes_where_only_ended_jobs_name_it(desk: Desk) -> None:
    desk.pool("llm")
    (job,) = desk.submit(**CALL)
    Job.objects.update(stage=Stage.DONE, status=Status.COMPLETED, finished_at=clock.now())
    assert apply(pools=[]) == ["- pool llm"]
    assert fresh(job).status == Status.COMPLETED


def test_running_jobs_of_a_pool_are_asked_to_end(desk: Desk) -> None:
    desk.pool("llm")
    (job,) = desk.submit(**CALL)
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    assert "in use by 1 unfinished job" in refused(pools=[])
    apply(pools=[], force=True)
    assert fresh(job).cancel_requested_at is not None
    worker.settle([claimed])
    assert fresh(job).stage == Stage.DONE


def test_a_queue_does_not_lose_the_pool_that_its_jobs_wait_for(desk: Desk) -> None:
    queue = desk.queue("q", pool=desk.pool("llm"))
    (job,) = desk.submit(**PLAIN_CALL, queue="q")
    found = refused(queues=only("q"), pools=[], prune=False)
    assert "queue 'q' can't lose its pool: in use by 1 unfinished job" in found
    queue.refresh_from_db()
    assert queue.pool_id is not None
    apply(queues=[*only("q"), *only(*Queue.objects.exclude(name="q").values_list("name", flat=True))], force=True)
    assert fresh(job).status == Status.CANCELLED


def test_a_queue_with_jobs_stays_and_goes_by_force_with_their_rows(desk: Desk) -> None:
    desk.queue("q", retry={"strategy": "fixed", "max_attempts": 1})
    others = [{"name": row.name, "retry_policy": "standard"} for row in Queue.objects.exclude(name="q")]
    project = desk.project()
    batch, _ids, _ = batches.submit_bulk(project, [read_job({"type": "test.echo", "queue": "q"}) for _ in range(3)])
    worker = desk.worker()
    desk.cycle()
    claimed = worker.claim()
    worker.settle(claimed[:1])
    worker.settle(claimed[1:2], failed("server"))
    assert "1 job running; cancel them or let them end" in refused(queues=others)
    with pytest.raises(config.ConfigInvalid, match="1 job running"):
        apply(queues=others, force=True)
    worker.settle()
    desk.submit(2, queue="q")
    found = refused(queues=others)
    assert "2 unfinished jobs, 3 ended jobs that retention keeps; `--prune --force` cancels them, deletes them" in found
    assert any(
        change.startswith("- queue q\n    2 unfinished jobs: cancels them")
        for change in apply(queues=others, force=True)
    )
    assert not Queue.objects.filter(name="q").exists()
    assert (Job.objects.count(), Attempt.objects.count(), DeadLetter.objects.count()) == (0, 0, 0)
    batch.refresh_from_db()
    assert batch_progress(batch).totals["completed"] == 2


def test_a_project_with_work_or_keys_stays(desk: Desk) -> None:
    project = desk.project("acme")
    ApiKey.objects.create(prefix="p", secret_hash="h", name="k", project=project, scopes=["check"])
    assert "1 API key of it in force" in refused(projects=[])
    batches.submit_bulk(project, [read_job({"type": "test.echo"})])
    found = refused(projects=[])
    assert "1 unfinished job" in found and "1 batch" in found
    apply(projects=[], force=True)
    assert not Project.objects.exists() and not Job.objects.exists() and not ApiKey.objects.exists()


def test_what_the_configuration_names_goes_in_one_file_or_not_at_all(desk: Desk) -> None:
    desk.pool("llm", fallback=["spare"])
    desk.pool("spare")
    provider = Provider.objects.get(name="p-llm")
    policy = desk.policy("p", "queue", 5, match="batch")
    assert policy.match == "batch"
    assert "queue 'batch' can't be removed: policy 'p' names it" in refused(queues=[])
    assert "there is no pool 'spare'" in refused(
        pools=[{"name": "llm", "provider": "p-llm", "pause_at": None, "fallback": ["spare"], "accounts": only("a1")}]
    )
    assert "provider 'p-llm' can't be removed" in refused(providers=[])
    assert {change.partition("\n")[0] for change in apply(pools=[], policies=[], providers=[])} == {
        "- pool llm", "- pool spare", "- policy p", "- provider p-llm", "- provider p-spare",
    }  # fmt: skip
    assert not Provider.objects.filter(pk=provider.pk).exists()


def test_a_recurring_job_names_its_pool(desk: Desk) -> None:
    desk.project()
    nightly = {
        "name": "nightly", "cron": "0 3 * * *", "type": "http.request", "project": "acme",
        "payload": {"pool": "lm", "path": "/"},
    }  # fmt: skip
    assert "there is no pool 'lm'" in refused(recurring=[nightly])
    desk.pool("lm")
    apply(recurring=[nightly])
    assert "pool 'lm' can't be removed: recurring job 'nightly' names it" in refused(pools=[])


def test_force_is_for_prune(tmp_path: Any, desk: Desk) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("version: 1\npools: []\n")
    with pytest.raises(CommandError, match="only with --prune"):
        call_command("apply", str(file), force=True)
    desk.pool("llm")
    desk.submit(**CALL)
    with pytest.raises(CommandError, match="can't be removed"):
        call_command("apply", str(file), prune=True)
    out = io.StringIO()
    call_command("apply", str(file), prune=True, force=True, stdout=out)
    assert "- pool llm\n    1 unfinished job: cancels them\n" in out.getvalue()


@pytest.mark.parametrize("what", ["pool", "tier", "project", "queue"])
def test_the_admin_deletes_nothing_that_is_in_use(desk: Desk, django_user_model: Any, what: str) -> None:
    rows: dict[str, Any] = {
        "pool": desk.pool("llm"), "tier": Tier.objects.create(name="gold"), "project": desk.project("acme"),
        "queue": desk.queue("q"),
    }  # fmt: skip
    row = rows[what]
    Project.objects.filter(slug="acme").update(tier=rows["tier"])
    ApiKey.objects.create(prefix="p", secret_hash="h", name="k", project=rows["project"], scopes=[])
    desk.submit(**CALL, queue="q")
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("root", password="x"))
    page = f"/admin/{row._meta.app_label}/{what}/{row.pk}/delete/"
    answer = client.post(page, {"post": "yes"})
    assert type(row).objects.filter(pk=row.pk).exists(), answer.status_code
    assert any(use.what and use.what.encode() in answer.content for use in in_use.uses(row))


def test_jobs_of_a_pool_that_is_gone_wait_and_say_so(desk: Desk) -> None:
    desk.pool("llm")
    (job,) = desk.submit(**CALL)
    (other,) = desk.submit()
    Pool.objects.all().delete()  # past every face
    desk.renew_configuration()
    worker = desk.worker()
    desk.cycle()
    assert fresh(other).stage == Stage.BELT
    found = explain(fresh(job))
    assert found.waits_for == "pool llm, which does not exist: create it, or cancel the job"
    assert found.estimated_start is None
    desk.pool("llm")
    desk.cycle()
    assert fresh(job).stage == Stage.BELT
    assert worker


def test_calls_whose_queue_names_no_pool_any_more_wait_and_say_so(desk: Desk) -> None:
    queue = desk.queue("q", pool=desk.pool("llm"))
    (job,) = desk.submit(**PLAIN_CALL, queue="q")
    (other,) = desk.submit(queue="q")
    Queue.objects.filter(pk=queue.pk).update(pool=None)
    desk.renew_configuration()
    desk.worker()
    desk.cycle()
    assert (fresh(job).stage, fresh(other).stage) == (Stage.READY, Stage.BELT), "others of its lane need no pool"
    assert "neither the job nor queue q names one" in explain(fresh(job)).waits_for
    queue.pool = Pool.objects.get()
    queue.save()
    desk.renew_configuration()
    desk.cycle()
    assert fresh(job).stage == Stage.BELT


@pytest.mark.parametrize("gone", ["account", "pool", "queue's pool"])
def test_what_is_removed_between_admission_and_start_kills_no_job(desk: Desk, gone: str) -> None:
    queue = desk.queue("q", pool=desk.pool("llm"))
    (job,) = desk.submit(**PLAIN_CALL, queue="q")
    worker = desk.worker()
    desk.cycle()
    if gone == "account":
        Account.objects.all().delete()
    else:
        Queue.objects.filter(pk=queue.pk).update(pool=None)
        Pool.objects.all().delete()
    desk.renew_configuration()
    (claimed,) = worker.claim()
    if gone == "queue's pool":
        Job.objects.update(account_lease="")
        claimed.job.account_lease = ""
    result = perform(claimed)
    assert (result.category, result.counted) == ("rate_limited", False)
    worker.settle([claimed], result)
    assert fresh(job).status == Status.RATE_LIMITED and not DeadLetter.objects.exists()


def test_a_pool_without_accounts_is_named(desk: Desk) -> None:
    desk.pool("llm", accounts=0)
    (job,) = desk.submit(**CALL)
    assert explain(job).waits_for == "an account of pool llm, which has none"


def test_a_letter_of_a_removed_pool_is_replayed_into_the_wait(desk: Desk) -> None:
    desk.pool("llm")
    desk.queue("q", retry={"strategy": "fixed", "max_attempts": 1})
    (job,) = desk.submit(**CALL, queue="q")
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed("server"))
    apply(pools=[])
    desk.renew_configuration()
    dead_letters.retry(fresh(job), actor="test")
    desk.cycle()
    assert fresh(job).stage == Stage.READY
    assert "does not exist" in explain(fresh(job)).waits_for
    assert not Policy.objects.exists()
