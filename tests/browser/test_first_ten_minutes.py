"""The path of docs/operators/README.md, step by step, by a person who knows nothing else, on an instance that was just
started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import Visit
from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance
from tests.support.valkey import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(600)]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    started = Instance("--workers", "1").start()
    yield started
    started.stop()
    started.remove()


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with Simulator("--rpm", "5") as simulator:
        yield simulator


def to(page: Any, *titles: str) -> None:
    """Navigation, as the documentation writes it: the group is only a heading."""
    page.locator("#nav-sidebar-inner a, aside a, nav a").filter(has_text=titles[-1]).first.click()
    page.wait_for_load_state()


def add(page: Any) -> None:
    page.locator("a[href$='/add/']:has-text('add')").first.click()
    page.wait_for_selector("[name=_save]")


def save(page: Any) -> None:
    with page.expect_navigation():
        page.click("[name=_save]")
    assert "correct the error" not in page.inner_text("body"), page.inner_text("body")


def pick(page: Any, field: str, text: str) -> None:
    """An item of a list that is searched, as select2 shows it."""
    page.locator(f"#id_{field} + .select2 .select2-selection").click()
    page.locator(".select2-results__option", has_text=text).first.click()


def submit(client: Any, path: str) -> str:
    payload = {
        "pool": "llm", "method": "POST", "path": path,
        "json": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    }  # fmt: skip
    answer = client.post("/api/v1/jobs", json={"type": "http.request", "user": "u-1", "payload": payload})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_newcomers_path(browser: Any, instance: Instance, provider: Simulator) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    visit = Visit(context.new_page(), instance.url)
    page = visit.page
    page.goto(instance.url)  # the address that `up` prints
    page.fill("input[name=username]", instance.credentials["admin_username"])
    page.fill("input[name=password]", instance.credentials["admin_password"])
    page.click("button[type=submit]")
    page.wait_for_url(f"{instance.url}/admin/")

    to(page, "Access", "People")
    add(page)
    page.fill("[name=username]", "ana")
    page.select_option("#id_groups_from", label="operator")
    page.click("#id_groups_add, #id_groups_add_link, .selector-add")
    save(page)
    link = page.inner_text(".sl-secret")
    invited = browser.new_context()
    other = invited.new_page()
    other.goto(link)
    for field in ("new_password1", "new_password2"):
        other.fill(f"[name={field}]", "a long and good one 27")
    other.click("button[type=submit]")
    other.wait_for_url(f"{instance.url}/admin/")
    assert other.locator("a:has-text('Jobs')").count() and not other.locator("a[href$='/auth/user/']").count()
    invited.close()

    to(page, "Access", "Projects")
    add(page)
    page.fill("[name=slug]", "acme")
    save(page)
    to(page, "Access", "API keys")
    add(page)
    page.fill("[name=name]", "first")
    pick(page, "project", "acme")
    for scope in ("check", "submit", "read"):
        page.check(f"[name=scopes][value={scope}]")
    save(page)
    key = page.inner_text("#new-key")

    to(page, "Limits", "Policies")
    add(page)
    page.fill("[name=name]", "user-minute")
    page.select_option("[name=scope]", label="User")
    page.select_option("[name=algorithm]", label="Fixed window")
    page.fill("[name=limit]", "10")
    page.fill("[name=window]", "60")
    save(page)
    with instance.client() as client:
        client.headers["Authorization"] = f"Bearer {key}"
        checked: dict[str, Any] = {}

        def counted() -> bool:
            checked.update(client.post("/api/v1/limits/check", json={"user": "u-1"}).json())
            return bool(checked["policies"] if "policies" in checked else checked["limits"])

        wait_for(counted, timeout=30)
        assert checked["allowed"] is True
        page.click("#result_list a:has-text('user-minute')")
        page.locator("#policy-use tr", has_text="u-1").wait_for()

        to(page, "Upstreams", "Providers")
        add(page)
        page.fill("[name=name]", "sim")
        page.select_option("[name=dialect]", "openai")
        page.fill("[name=base_url]", provider.base_url)
        save(page)
        to(page, "Upstreams", "Pools")
        add(page)
        page.fill("[name=name]", "llm")
        pick(page, "provider", "sim")
        save(page)
        to(page, "Upstreams", "Accounts")
        add(page)
        pick(page, "pool", "llm")
        page.fill("[name=name]", "a1")
        page.fill("[name=credential]", "anything")
        save(page)

        first = submit(client, CHAT)
        to(page, "Work", "Jobs")
        wait_for(lambda: client.get(f"/api/v1/jobs/{first}").json()["status"] == "completed", timeout=60)
        page.reload()
        page.click(f"#result_list a:has-text('{first}')")
        page.locator("#attempts", has_text="a1").wait_for()

        later = [submit(client, CHAT) for _ in range(10)]
        page.goto(f"{instance.url}/admin/queues/job/?q=id:{later[-1]}")
        page.click(f"#result_list a:has-text('{later[-1]}')")
        page.locator(".sl-wait", has_text="Waiting for").wait_for(timeout=60_000)

        failed = submit(client, "/v1/nothing")
        wait_for(lambda: client.get(f"/api/v1/jobs/{failed}").json()["status"] == "dead", timeout=200)
    to(page, "Work", "Dead letters")
    page.click("text=Show by failure")
    page.click("#groups tbody a.sl-link")
    page.click("#result_list tbody th a")
    page.click("a:has-text('Edit and replay')")
    box = page.locator("#dialog textarea[name=payload]")
    box.wait_for(state="visible")
    box.fill(box.input_value().replace("/v1/nothing", CHAT))
    page.fill("#dialog [name=reason]", "wrong path")
    with page.expect_navigation():
        page.click("#dialog button:has-text('Replay')")
    page.locator("text=Requeued with the new payload").wait_for()
    to(page, "Access", "Audit log")
    assert "wrong path" in page.inner_text("#result_list")
    assert visit.complaints == [] and visit.strangers == []
    context.close()
