"""The job page's chart of waits and attempts, in both themes and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from queues.models import Batch, Job
from tests.browser.conftest import Visit
from tests.browser.seed import Day
from tests.integration.controlplane.admin.test_job_life import make_waited

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]
DARK = "() => document.documentElement.classList.add('dark')"
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_the_chart_shows_each_wait_and_attempt(visit: Open, day: Day) -> None:
    start = timezone.now() - timedelta(minutes=5)
    batch = Batch.objects.create(project=day.acme, name="b", created_at=start)
    job = make_waited(day, start, batch)
    root = visit("root")
    page = root.page
    root.go(f"queues/job/{job.pk}/change/")
    labels = page.locator(".sl-gantt-label:not(.sl-gantt-axis *)").all_inner_texts()
    assert any(label.startswith("Policy limit: user-hourly 40.0 s") for label in labels)
    assert any(label.startswith("Running 10.0 s") for label in labels)
    track = page.locator(".sl-gantt-track").first.bounding_box()
    bar = page.locator(".sl-gantt-track i[title^='Policy limit']").bounding_box()
    assert track is not None and bar is not None
    assert abs(bar["width"] / track["width"] - 40 / 120) < 0.02
    colours = page.locator(".sl-gantt-row i").evaluate_all("all => all.map(i => getComputedStyle(i).backgroundColor)")
    assert "rgba(0, 0, 0, 0)" not in [colour for colour in colours if colour]
    root.shot("job-life-light")
    page.evaluate(DARK)
    root.shot("job-life-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate(OVERFLOW) == 0
    root.shot("job-life-phone")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#waits a", has_text="Policy user-hourly").click()
    page.wait_for_url(f"**/quotas/policy/{day.policy.pk}/change/")
    root.go(f"queues/batch/{batch.pk}/change/")
    assert "Policy limit" in page.locator("#waits").inner_text()
    root.shot("batch-waits")
    assert root.complaints == [] and root.strangers == []


def test_the_story_of_a_job_that_has_not_ended_refreshes(visit: Open, day: Day) -> None:
    root = visit("root")
    root.go(f"queues/job/{day.running.pk}/change/")
    Job.objects.filter(pk=day.running.pk).update(reason="another reason")
    day.running.refresh_from_db()
    from queues.models import Transition

    Transition.objects.create(job=day.running, at=timezone.now(), state="executing", reason="a step made meanwhile")
    root.page.locator("#timeline", has_text="a step made meanwhile").wait_for(timeout=12_000)
    assert root.page.locator("#job-story").count() == 1
    assert root.complaints == []
