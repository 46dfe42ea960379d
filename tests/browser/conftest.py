"""A real Chromium on a real server, on a filled instance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.seed import PASSWORD, Day, make_day

SHOTS = Path(os.environ.get("SLUICE_TEST_SHOTS") or Path(__file__).resolve().parents[2] / "var" / "screenshots")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # playwright's loop runs in the tests' own thread


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for the whole session: while it lives, an event loop runs in this thread, and no other test could start one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def day(transactional_db: None, valkey: Any) -> Day:
    from controlplane.admin.dashboard import forget
    from controlplane.roles import make_roles

    forget()
    make_roles()
    return make_day()


class Visit:
    """A signed-in person's browser. What the page complains about is kept in `complaints`."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.strangers: list[str] = []
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
        """A picture of the page, for people to look at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


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
