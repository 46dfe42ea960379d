"""The configuration file as a page: who may, what is shown first is what is applied."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import yaml
from django.test import Client

from controlplane import config
from controlplane.models import AuditEntry
from quotas.models import Policy
from tests.browser.seed import CREDENTIAL, Day

SignIn = Callable[[str], Client]
PAGE = "/admin/configuration/"


def changed(limit: int) -> str:
    return config.export().replace("limit: 12", f"limit: {limit}")


def shown_by(page: str) -> str:
    return re.findall(r'name="shown" value="(\w+)"', page)[0]


def test_the_download_is_the_export(signed_in: SignIn, day: Day) -> None:
    answer = signed_in("root").get(PAGE, {"download": "1"})
    assert answer.content.decode() == config.export() and CREDENTIAL not in answer.content.decode()
    assert yaml.safe_load(answer.content)["version"] == 1


def test_nothing_is_applied_that_was_not_shown(signed_in: SignIn, day: Day) -> None:
    client = signed_in("administrator")
    for extra in ({}, {"shown": "0" * 64}):
        client.post(PAGE, {"text": changed(40), "apply": "1", "reason": "sneaky", **extra})
    shown = shown_by(client.post(PAGE, {"text": changed(40), "preview": "1"}).content.decode())
    answer = client.post(PAGE, {"text": changed(50), "apply": "1", "reason": "another file", "shown": shown})
    assert "Something has changed since" in answer.content.decode()
    client.post(PAGE, {"text": changed(40), "apply": "1", "reason": "", "shown": shown})
    assert Policy.objects.get(name="user-hourly").limit == 12 and not AuditEntry.objects.filter(verb="policy.change")
    for _ in range(2):  # a double click
        client.post(PAGE, {"text": changed(40), "apply": "1", "reason": "they pay", "shown": shown})
    assert Policy.objects.get(name="user-hourly").limit == 40
    assert AuditEntry.objects.filter(verb="policy.change", reason="they pay", actor="user:administrator").count() == 1


def test_removal_is_asked_for(signed_in: SignIn, day: Day) -> None:
    client = signed_in("administrator")
    without = re.sub(r"- name: bursty\n(  .*\n)+", "", config.export())
    assert "No changes" in client.post(PAGE, {"text": without, "preview": "1"}).content.decode()
    page = client.post(PAGE, {"text": without, "preview": "1", "prune": "on"}).content.decode()
    assert "0 added, 0 changed, 1 removed" in page
    client.post(PAGE, {"text": without, "prune": "on", "apply": "1", "reason": "unused", "shown": shown_by(page)})
    assert not Policy.objects.filter(name="bursty").exists()


@pytest.mark.parametrize("text", ["", "version: 1\n  - bad", "version: 9", "projects: {", "version: 1\nnope: []"])
def test_mistakes_are_named(signed_in: SignIn, day: Day, text: str) -> None:
    answer = signed_in("administrator").post(PAGE, {"text": text, "preview": "1"})
    page = answer.content.decode()
    assert answer.status_code == 200 and ("Nothing was changed" in page or "required" in page)


@pytest.mark.parametrize("role", ["viewer", "operator", "member"])
def test_only_administrators_may(signed_in: SignIn, day: Day, role: str) -> None:
    client = signed_in(role)
    assert client.get(PAGE).status_code == 403 and client.get(PAGE, {"download": "1"}).status_code == 403
    shown = shown_by(signed_in("root").post(PAGE, {"text": changed(40), "preview": "1"}).content.decode())
    answer = client.post(PAGE, {"text": changed(40), "apply": "1", "reason": "because", "shown": shown})
    assert answer.status_code == 403 and Policy.objects.get(name="user-hourly").limit == 12
