"""The pictures of docs/operators/: made from the pages as they are, and each shown by the documentation.

DOCS_PICTURES=1 python -m pytest tests/browser/test_pictures.py      replaces them
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from controlplane.admin.dashboard import forget
from controlplane.models import QueueSample
from queues.models import DeadLetter, Job
from quotas.models import UsageRollup
from tests.browser.conftest import SHOTS, Visit
from tests.browser.seed import Day
from tests.browser.test_everywhere import LOADED

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "operators"
MOST = 200_000
"""Bytes of one picture."""
PLAIN = "[class*=backdrop-blur] { backdrop-filter: none !important; background: var(--sl-paper, white) !important; }"
"""What is blurred behind a bar needs as many bytes as all the rest."""


FAILURES = (
    ("server", "warning", "503 overloaded", 37, 14),
    ("rate_limited", "warning", "429 rate limited after 5 attempts", 12, 5),
    ("code", "critical", "KeyError: 'total'", 4, 20),
)
"""Category, severity, error, how many letters, and hours since the first."""


def lively(day: Day) -> None:
    """What an hour of work leaves: use and denials, depths of queues, and a few failures."""
    now = timezone.now().replace(second=0, microsecond=0)
    for ago in range(1, 60):
        wave = 1 + math.sin(ago / 9)
        QueueSample.objects.create(
            queue=day.queue, project=day.acme, resolution="minute", at=now - timedelta(minutes=ago),
            high=int(8 * wave), normal=60 + int(50 * wave), low=20, enqueued=20, completed=18, dead=ago % 17 == 0,
            waits={"4": 12, "5": 5, "6": 1}, runs={"3": 9, "4": 8, "5": 1},
        )  # fmt: skip
        for key, most, denied in (("u-2", 11, 3), ("u-1", 7, 0), ("u-0", 5, 1)):
            UsageRollup.objects.create(
                policy=day.policy, project="acme", key=key, resolution="minute", start=now - timedelta(minutes=ago),
                used=int(most * (0.5 + wave / 4)), denied=denied if ago % 7 == 0 else 0, limit=12,
            )  # fmt: skip
    DeadLetter.objects.exclude(pk=day.letter.pk).delete()
    other = Job.objects.filter(status="dead").exclude(pk=day.dead.pk).earliest("pk")
    for number, (category, severity, error, count, hours) in enumerate(FAILURES):
        DeadLetter.objects.bulk_create(
            DeadLetter(
                job=other, project=day.acme, queue=day.queue, type="http.request", category=category,
                severity=severity, fingerprint=f"{number:032}", error=error, attempts=5,
                created_at=now - timedelta(hours=hours * one * one / count / count),
            )
            for one in range(count)
        )  # fmt: skip
    forget()


def test_pictures_of_the_console(visit: Open, day: Day) -> None:
    lively(day)
    pages = {
        "dashboard": ("", ".sl-tile, .sl-card"),
        "job": (f"queues/job/{day.dead.pk}/change/", "#content"),
        "policy": (f"quotas/policy/{day.policy.pk}/change/", "#policy-use tbody tr"),
        "failures": ("queues/deadletter/groups/", "#groups tbody tr"),
    }
    root = visit("root")
    root.page.set_viewport_size({"width": 1280, "height": 820})
    folder = DOCS if os.environ.get("DOCS_PICTURES") else SHOTS
    folder.mkdir(parents=True, exist_ok=True)
    for name, (path, shown) in pages.items():
        root.go(path)
        root.page.locator(shown).first.wait_for()
        root.page.wait_for_load_state("networkidle")
        root.page.wait_for_function(LOADED)
        picture = root.page.screenshot(path=folder / f"{name}.png", style=PLAIN)
        assert 5_000 < len(picture) < MOST, f"{name}: {len(picture)} bytes"
    named = {name for page in DOCS.glob("*.md") for name in re.findall(r"\]\(([\w-]+)\.png\)", page.read_text())}
    assert named == pages.keys() == {path.stem for path in DOCS.glob("*.png")}
    assert root.complaints == []
