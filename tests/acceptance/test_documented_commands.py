"""The shell blocks of the documentation that are marked `sh runnable`, run as printed against a demo instance."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance, running
from tests.support.valkey import free_port

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.compile(r"^```sh runnable\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = re.compile(r"^```sh runnable$", re.MULTILINE)
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if SECTIONS.search(page.read_text())
]
PREAMBLE = """
set -euo pipefail
curl() { command curl --fail-with-body --max-time 20 "$@"; }
"""
"""A refused request fails the script, which plain curl would not do."""

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[Instance, str]]:
    """A demo instance, and the address of another simulated provider."""
    with Simulator("--dialect", "openai", "--rpm", "600") as simulator, running("--demo", migrated=True) as started:
        yield started, simulator.base_url


def script_of(page: Path, instance: Instance, provider: str) -> str:
    """All runnable blocks of a page as one script, with this instance's paths and addresses."""
    text = "".join(BLOCKS.findall(page.read_text()))
    actual = {
        ".venv/bin/python manage.py": f"{sys.executable} {ROOT / 'manage.py'}",
        ".venv/bin/python examples/": f"{sys.executable} {ROOT / 'examples'}/",
        ".venv/bin/python ": f"{sys.executable} ",
        "http://127.0.0.1:8000": instance.url,
        "http://127.0.0.1:9100": provider,
        "9101": str(free_port()),
        "var/credentials.txt": str(instance.data_dir / "credentials.txt"),
    }
    documented = re.compile("|".join(map(re.escape, actual)))
    return PREAMBLE + documented.sub(lambda found: actual[found.group()], text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_succeed(page: Path, demo: tuple[Instance, str], tmp_path: Path) -> None:
    instance, provider = demo
    done = subprocess.run(
        ["bash", "-c", script_of(page, instance, provider)],
        cwd=tmp_path,
        env={**instance.environ, "SLUICE_URL": instance.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_the_pages_that_a_newcomer_reads_first_are_run() -> None:
    first = {"README.md", "getting-started.md", "operators.md", "api.md", "queues.md", "accounts.md", "limits-rest.md"}
    guides = {"limit-a-django-endpoint.md", "share-llm-keys.md", "send-telegram-messages.md", "fan-out-a-batch.md"}
    assert first | guides <= {page.name for page in PAGES}
