"""What is wrong with the page that a browser shows: overflow, controls without a name, illegible text, faults that axe finds."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import pytest

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
SIDEWAYS = """() => {
  const panel = document.querySelector('#result_list')?.closest('.simplebar-content-wrapper');
  return panel ? panel.scrollWidth - panel.clientWidth : 0;
}"""
"""By how many pixels a list is wider than its panel."""
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
AXE = """(root) => axe.run(root ? {include: [root]} : document, {resultTypes: ['violations']}).then((found) => found.violations
  .filter((v) => v.impact === 'serious' || v.impact === 'critical')
  .map((v) => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary.slice(0, 200)]))"""


@cache
def axe() -> str:
    """The source of axe-core, which the package carries."""
    package = pytest.importorskip("axe_playwright_python")
    return resources.files(package).joinpath("axe.min.js").read_text()


def faults(page: Any) -> dict[str, Any]:
    """By kind; empty for a page without any."""
    found = {
        "overflow": page.evaluate(OVERFLOW), "unnamed": page.evaluate(UNNAMED), "mains": page.evaluate(MAINS) - 1,
        "contrast": page.evaluate(CONTRAST), "axe": axe_faults(page),
    }  # fmt: skip
    return {kind: fault for kind, fault in found.items() if fault}


def axe_faults(page: Any, root: str = "") -> Any:
    page.evaluate(axe())
    return page.evaluate(AXE, root)
