"""Pages on a wide and a narrow screen, light and dark: no overflow, named controls, legible text, honest figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from queues.models import Recurring, WorkerProcess
from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]

UNNAMED = """() => {
  const shown = (e) => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
  const text = (e) => (e.getAttribute('aria-label') || e.title || e.innerText || '').trim();
  const labelled = (e) => (e.getAttribute('aria-labelledby') || '').split(' ')
    .some((id) => id && document.getElementById(id)?.innerText.trim());
  return Array.from(document.querySelectorAll('input:not([type=hidden]), select, textarea, button, [role=combobox]'))
    .filter((e) => shown(e) && !text(e) && !labelled(e)
      && !(e.labels && Array.from(e.labels).some((l) => l.innerText.trim())) && !(e.type === 'submit' && e.value))
    .map((e) => e.outerHTML.slice(0, 160));
}"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
MAINS = "() => document.querySelectorAll('main, [role=main]').length"
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
    return [255, 255, 255, 255];
  };
  const marked = '.sl-button, .sl-badge, .sl-tile span, .sl-dim, .sl-tag, '
    + '[class*="bg-green-"], [class*="bg-orange-"], [class*="bg-red-"], [class*="bg-primary-"], [class*="bg-blue-"]';
  return Array.from(document.querySelectorAll(marked))
    .filter((e) => e.checkVisibility() && Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim()) && rgb(getComputedStyle(e).backgroundColor)[3] % 255 === 0)
    .map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
      return [Math.round((a + 0.05) / (b + 0.05) * 100) / 100, e.innerText.trim().slice(0, 40), e.className.slice(0, 60)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


def pages(day: Day) -> dict[str, str]:
    return {
        "dashboard": "", "jobs": "queues/job/", "letters": "queues/deadletter/", "audit": "controlplane/auditentry/",
        "queue": f"queues/queue/{day.queue.pk}/change/", "job": f"queues/job/{day.dead.pk}/change/",
        "letter": f"queues/deadletter/{day.letter.pk}/change/", "batch": f"queues/batch/{day.running.batch_id}/change/",
        "policy": f"quotas/policy/{day.policy.pk}/change/", "account": f"quotas/account/{day.account.pk}/change/",
        "pool": f"quotas/pool/{day.account.pool_id}/change/", "project": f"quotas/project/{day.acme.pk}/change/",
        "recurring": "queues/recurring/add/", "person": "auth/user/add/", "group": f"auth/group/{Group.objects.get(name='operator').pk}/change/",
        "user": f"auth/user/{User.objects.get(username='member').pk}/change/", "key": "quotas/apikey/add/", "workers": "queues/workerprocess/",
        "worker": f"queues/workerprocess/{WorkerProcess.objects.get(name='io-host1-1').pk}/change/", "queues": "queues/queue/",
        "doctor": "doctor/", "configuration": "configuration/", "policy-add": "quotas/policy/add/", "accounts": "quotas/account/",
    }  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_name_their_controls(visit: Open, day: Day, width: int, dark: bool) -> None:
    root = visit("root")
    page = root.page
    page.set_viewport_size({"width": width, "height": 900})
    if dark:
        page.add_init_script(
            "new MutationObserver(() => document.documentElement.classList.add('dark'))"
            ".observe(document, {childList: true, subtree: true})"
        )
    faults: dict[str, Any] = {}
    for name, path in pages(day).items():
        root.go(path)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(150)  # names are given once the theme's widgets have been built
        root.shot(f"{name}-{width}{'-dark' if dark else ''}")
        found = {
            "overflow": page.evaluate(OVERFLOW), "unnamed": page.evaluate(UNNAMED),
            "mains": page.evaluate(MAINS) - 1, "contrast": page.evaluate(CONTRAST),
        }  # fmt: skip
        faults[name] = {kind: fault for kind, fault in found.items() if fault}
    assert [(name, found) for name, found in faults.items() if found] == []
    assert root.complaints == [] and root.strangers == []
    assert not Recurring.objects.exists()


def test_a_panel_says_when_its_figures_are_old_and_recovers(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.wait_for_selector("#panel-pulse .sl-tile")
    figure = page.locator("#panel-pulse .sl-tile b").first.inner_text()
    page.context.set_offline(True)
    note = page.locator("#panel-pulse .sl-stale-note")
    note.wait_for()
    assert "Figures are from" in note.inner_text()
    assert page.locator("#panel-pulse .sl-tile b").first.inner_text() == figure, "the last figures stay"
    root.shot("dashboard-offline")
    page.context.set_offline(False)
    note.wait_for(state="detached")
    page.route("**/admin/live/queues*", lambda route: route.fulfill(status=500, body="fault"))
    broken = page.locator("#panel-queues .sl-stale-note")
    broken.wait_for()
    assert "error (500)" in broken.inner_text()
    page.unroute("**/admin/live/queues*")
    broken.wait_for(state="detached")


def test_a_session_that_ends_leads_to_the_login_form_and_back(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.wait_for_selector("#panel-pulse .sl-tile")
    page.context.clear_cookies()
    page.wait_for_url("**/admin/login/?next=/admin/")
    assert page.locator("input[name=username]").count() == 1
