"""A click that leads to another page ends when that page is loaded.

Playwright's own click ends at the new page's first byte: what a test reads next may be of a page that is half parsed,
which a busy machine shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

ACTS = ((Page, "click"), (Page, "dblclick"), (Page, "select_option"), (Locator, "click"))
LEAVING = """
navigation.addEventListener('navigate', event => {
  if (!event.destination.sameDocument && event.downloadRequest === null) window.isLeaving = true;
});
navigation.addEventListener('navigateerror', () => { window.isLeaving = false; });
addEventListener('submit', event => { if (!event.defaultPrevented) window.isLeaving = true; });
"""
"""For each page of a context, before its own scripts."""
ARRIVED = "() => !window.isLeaving && document.readyState === 'complete'"


def arrive(page: Any) -> None:
    """Wait until a page that is being left is left, and the next one is loaded."""
    page.wait_for_function(ARRIVED)


def _arriving(act: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(act)
    def arriving(of: Page | Locator, *args: Any, **options: Any) -> Any:
        done = act(of, *args, **options)
        arrive(of.page if isinstance(of, Locator) else of)
        return done

    return arriving


@contextmanager
def acts_that_arrive() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for holder, name in ACTS:
            patched.setattr(holder, name, _arriving(getattr(holder, name)))
        yield
