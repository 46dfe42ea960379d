"""Completion callbacks: signed, repeated, kept out of private networks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from queues.errors import InvalidJob
from queues.models import Callback, Job
from queues.services import batches, cancel
from queues.services.callbacks import check_url, outbox, secret_of
from queues.services.defaults import create_defaults
from queues.services.submit import submit
from queues.specs import read_job
from queues.tasks import task
from quotas.models import Project
from quotas.runtime.outbox import WAITS
from quotas.runtime.outbox_sender import OutboxSender
from tests.integration.queues.conftest import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@task(name="tests.callbacks.nothing", queue="batch")
def nothing(job: object) -> None:
    """Does nothing."""


class Receiver:
    """A real HTTP server that keeps what it gets and answers with `statuses`, one after the other."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Keeps the tests' output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=1"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def project() -> Project:
    create_defaults()
    return Project.objects.create(slug="acme")


def ended_job(url: str) -> Job:
    job = submit("tests.callbacks.nothing", project="acme", callback_url=url)
    return cancel.cancel(job.pk, actor="tests")


def test_a_callback_is_signed_and_sent_once(project: Project, receiver: Receiver) -> None:
    job = ended_job(receiver.url)

    assert outbox.send_due() == 1
    assert outbox.send_due() == 0
    headers, body = receiver.got[0]
    content = json.loads(body)
    assert content["type"] == "job.cancelled"
    assert content["data"]["id"] == job.uid
    key = base64.b64decode(secret_of(project).removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert (
        headers["webhook-signature"]
        == "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    )
    assert Callback.objects.get().delivered_at is not None


def test_a_failed_callback_is_repeated_with_the_same_id_until_it_is_taken(project: Project, receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 200]
    ended_job(receiver.url)

    for tries, wait in ((1, 5), (2, 30)):
        assert outbox.send_due() == 1
        callback = Callback.objects.get()
        assert callback.tries == tries
        assert callback.due_at is not None
        assert abs(callback.due_at - timezone.now() - timedelta(seconds=wait)) < timedelta(seconds=3)
        Callback.objects.update(due_at=timezone.now())
    assert outbox.send_due() == 1
    assert Callback.objects.get().delivered_at is not None
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 3, "the redirect was not followed"


def test_it_is_given_up_after_the_last_try(project: Project, receiver: Receiver) -> None:
    receiver.statuses = [503]
    ended_job(receiver.url)
    Callback.objects.update(tries=len(WAITS))

    outbox.send_due()

    callback = Callback.objects.get()
    assert (callback.due_at, callback.delivered_at) == (None, None)
    assert callback.error == "given up: HTTP 503"


def test_two_senders_send_once(project: Project, receiver: Receiver) -> None:
    ended_job(receiver.url)
    stale = list(Callback.objects.all())

    assert outbox.send_due() == 1
    # A second sender that had read the row before finds it moved on.
    assert Callback.objects.filter(pk=stale[0].pk, due_at=stale[0].due_at).count() == 0
    assert len(receiver.got) == 1


def test_a_batch_sends_a_callback_when_it_is_complete(project: Project, receiver: Receiver) -> None:
    specs = [read_job({"type": "tests.callbacks.nothing"}) for _ in range(2)]
    batch, ids, _ = batches.submit_bulk(project, specs, name="two", callback_url=receiver.url)
    jobs = list(Job.objects.filter(uid__in=ids))
    cancel.cancel(jobs[0].pk, actor="tests")
    assert not Callback.objects.exists()

    cancel.cancel(jobs[1].pk, actor="tests")

    assert outbox.send_due() == 1
    body = json.loads(receiver.got[0][1])
    assert body["type"] == "batch.completed"
    assert body["data"]["id"] == batch.uid


def test_a_rolled_back_end_sends_no_callback(project: Project, receiver: Receiver) -> None:
    job = submit("tests.callbacks.nothing", project="acme", callback_url=receiver.url)
    with pytest.raises(RuntimeError), transaction.atomic():
        cancel.cancel(job.pk, actor="tests")
        raise RuntimeError
    assert outbox.send_due() == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "http://", "http://user:pass@example.com/", "http://10.0.0.1/", "http://192.168.1.1/x",
        "http://169.254.169.254/latest/meta-data", "http://[::ffff:10.0.0.1]/", "http://[fd00::1]/", "http://0.0.0.0/",
        "http://224.0.0.1/", "http://example.com:99999/", "javascript:alert(1)",
        "http://example.com/a b", "http://example.com/\r\nX: y", "http://exa mple.com/", "http://a..b/", "http://example.com:0/",
        "http://10.1/", "http://167772161/", "http://0xa000001/", "http://192.168.0.1./", "http://0300.0250.0.1/",
        f"http://{'x' * 64}.example.com/",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_url(url, "/callback_url")
    assert caught.value.errors[0].pointer == "/callback_url"


@pytest.mark.parametrize("url", ["http://a..b/", "http://127.0.0.1:9/\x7f", "http://\u2603.invalid/"])
def test_an_address_that_cannot_be_asked_for_is_given_up_like_any_other(project: Project, url: str) -> None:
    """Accepted from Python, where it is not checked, or before such were refused."""
    ended_job(url)
    assert outbox.send_due() == 1
    callback = Callback.objects.get()
    assert (callback.tries, callback.delivered_at) == (1, None)
    assert callback.error
    Callback.objects.update(tries=len(WAITS), due_at=timezone.now())
    outbox.send_due()
    assert Callback.objects.get().due_at is None


def test_this_machine_by_its_name_is_refused_where_its_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    check_url("http://localhost/", "/callback_url")
    monkeypatch.setattr(settings, "CALLBACK_NETWORKS", [])
    for url in (
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://127.1/",
        "http://2130706433/",
    ):
        with pytest.raises(InvalidJob):
            check_url(url, "/callback_url")


def test_a_slow_receiver_holds_up_nobody(project: Project, receiver: Receiver) -> None:
    """More callbacks to one that never answers than are sent at once, all of them older than the one to another."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for _ in range(20):
            ended_job(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        ended_job(receiver.url)
        sender = OutboxSender(lambda: True, outbox, "callbacks")
        sender.start()
        try:
            wait_until(lambda: receiver.got, 60.0)  # silent ones take ten seconds each, one after the other 200
        finally:
            sender.stop()
            sender.join()
    wait_until(lambda: not sender.underway)  # the silent one is gone
    assert Callback.objects.filter(delivered_at=None).count() == 20


def test_a_name_that_means_a_private_address_is_not_called(
    project: Project, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = receiver.server.server_port
    ended_job(f"http://localhost:{port}/")
    monkeypatch.setattr(settings, "CALLBACK_NETWORKS", [])

    assert outbox.send_due() == 1

    assert receiver.got == []
    assert "no address that a callback may go to" in Callback.objects.get().error
