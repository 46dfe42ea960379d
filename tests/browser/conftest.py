"""A real Chromium on a real server, on a filled instance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.arrivals import LEAVING, acts_that_arrive
from tests.browser.seed import PASSWORD, Day, make_day
from tests.support.chromium import chromium

SHOTS = Path(os.environ.get("SLUICE_TEST_SHOTS") or Path(__file__).resolve().parents[2] / "var" / "screenshots")
SLOWER = float(os.environ.get("SLUICE_TEST_BROWSER_SLOWER") or 1)
"""How many times slower than they are the pages' scripts run: what a test does not wait for shows itself."""
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # playwright's loop runs in the tests' own thread


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for the whole session: while it lives, an event loop runs in this thread, and no other test could start one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, acts_that_arrive():
        started = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def day(transactional_db: None, valkey: Any) -> Day:
    from controlplane.admin.dashboard import forget

    forget()
    return make_day()


@pytest.fixture(scope="session")
def default_database(django_db_setup: None, django_db_keepdb: bool, django_db_blocker: Any) -> Iterator[None]:
    """pytest-django creates a database for tests with its marker, which tests of a shared instance can't have: it would
    empty the database after each."""
    from django.db import DatabaseError, connection
    from django.test.utils import setup_databases, teardown_databases

    with django_db_blocker.unblock():
        try:
            made = "queues_job" in connection.introspection.table_names()
        except DatabaseError:
            made = False
        connection.close()
        before = None if made else setup_databases(0, interactive=False, aliases=["default"], keepdb=django_db_keepdb)
        yield
        if before is not None:
            teardown_databases(before, 0, keepdb=django_db_keepdb)


@pytest.fixture(scope="module")
def shared_day(default_database: None, django_db_blocker: Any, valkey_server: Any) -> Iterator[tuple[str, Day]]:
    """The address of a server on an instance that all tests of a module share, and what was made there. Each test
    chooses rows that the others leave alone."""
    from django.core.management import call_command
    from pytest_django.live_server_helper import LiveServer

    from controlplane.admin.dashboard import forget

    with django_db_blocker.unblock():
        with valkey_server.client() as client:
            client.flushall()
        forget()
        server = LiveServer("localhost")
        server._live_server_modified_settings.enable()
        try:
            yield server.url, make_day()
        finally:
            server.stop()
            server._live_server_modified_settings.disable()
            call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=False)


@pytest.fixture(scope="module")
def people(browser: Any, shared_day: tuple[str, Day]) -> Iterator[Callable[[str], Visit]]:
    """Signed-in people, each once for the module; every call leads to the dashboard."""
    known: dict[str, Visit] = {}

    def person(username: str) -> Visit:
        if username not in known:
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            context.set_default_timeout(20_000)
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            known[username] = Visit(context.new_page(), shared_day[0])
            known[username].sign_in(username)
        visit = known[username]
        visit.complaints.clear()
        visit.go("")
        return visit

    yield person
    for visit in known.values():
        visit.page.context.close()


class Visit:
    """A signed-in person's browser. What the page complains about is kept in `complaints`."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.add_init_script(LEAVING)
        if SLOWER > 1:
            page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.strangers.append(request.url)

    def sign_in(self, username: str) -> None:
        self.page.goto(f"{self.url}/admin/login/")
        self.page.fill("input[name=username]", username)
        self.page.fill("input[name=password]", PASSWORD)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(f"{self.url}/admin/")

    def go(self, path: str) -> Any:
        answer = self.page.goto(f"{self.url}/admin/{path}")
        assert answer is not None
        return answer

    def shot(self, name: str) -> None:
        """A picture of the page, for people to look at: if the environment says where."""
        if "SLUICE_TEST_SHOTS" not in os.environ:
            return
        picture = SHOTS / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=picture, full_page=True)


@pytest.fixture
def visit(browser: Any, live_server: Any, day: Day) -> Iterator[Callable[[str], Visit]]:
    contexts = []

    def open_as(username: str) -> Visit:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(15_000)
        contexts.append(context)
        made = Visit(context.new_page(), live_server.url)
        made.sign_in(username)
        return made

    yield open_as
    for context in contexts:
        context.close()
