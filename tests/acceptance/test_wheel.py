"""The built wheel, installed into a bare virtual environment: it starts outside of the checkout and runs a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.instance import wait_until
from tests.support.valkey import free_port

ROOT = Path(__file__).resolve().parents[2]
CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
CONFIGURATION = """
version: 1
projects: [{slug: acme}]
providers: [{name: sim, dialect: openai, base_url: "http://127.0.0.1:%d"}]
pools: [{name: llm, provider: sim, accounts: [{name: a1, credential_env: SIM_KEY}]}]
"""


def run(*argv: str | Path, cwd: Path, **environ: str) -> str:
    """The command's output; its failure shows what it printed."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, env={**clean(), **environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def clean() -> dict[str, str]:
    """This environment without what would lead the installed command back to the checkout or to another instance."""
    dropped = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL", "LIMITER_REDIS_URL")
    return {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("SLUICE_")}


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `sluice` command of a virtual environment that has the wheel and the locked dependencies, nothing else."""
    place = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", place, ROOT, cwd=place)
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    pip = (sys.executable, "-m", "pip", "--python", place / "venv/bin/python", "--disable-pip-version-check")
    run(*pip, "install", "-q", "--require-hashes", "-r", ROOT / "requirements.lock", cwd=place)
    run(*pip, "install", "-q", "--no-deps", next(place.glob("*.whl")), cwd=place)
    run(*pip, "check", cwd=place)
    return place / "venv/bin/sluice"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


@pytest.mark.timeout(400)
def test_the_installed_command_starts_and_runs_a_job(sluice: Path, home: Path) -> None:
    assert run(sluice, "--version", cwd=home).startswith("sluice 0.")
    port, provider = free_port(), free_port()
    log = (home / "up.log").open("w")
    children = [
        subprocess.Popen([sluice, "simulate_upstream", "--port", str(provider)], cwd=home, env=clean(), stdout=log, stderr=log),
        subprocess.Popen([sluice, "up", "--port", str(port)], cwd=home, env=clean(), stdout=log, stderr=log),
    ]  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: f"ready: {url}" in (home / "up.log").read_text(), 120, (home / "up.log").read_text)
        (home / "llm.yaml").write_text(CONFIGURATION % provider)
        assert "acme" in run(sluice, "apply", "llm.yaml", cwd=home, SIM_KEY="sk-1")
        assert "preset" in run(sluice, "apply", "--help", cwd=home)
        run(sluice, "apply", "preset:openai", "--dry-run", cwd=home, OPENAI_API_KEY="sk-2")
        credentials = (home / "var/credentials.txt").read_text()
        key = next(line.split()[1] for line in credentials.splitlines() if line.startswith("platform_key:"))
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
            assert client.get("/admin/login/").status_code == 200
            assert client.get("/static/controlplane/sluice.css").status_code == 200
            payload = {"pool": "llm", "method": "POST", "path": "/v1/chat/completions", "json": CHAT}
            job = {"type": "http.request", "project": "acme", "queue": "batch", "payload": payload}
            made = client.post("/api/v1/jobs", json=job)
            assert made.status_code == 202, made.text
            path = f"/api/v1/jobs/{made.json()['id']}"
            wait_until(
                lambda: client.get(path).json()["status"] not in ("pending", "executing"),
                60,
                lambda: client.get(path).text,
            )
            assert client.get(path).json()["status"] == "completed", json.dumps(client.get(path).json(), indent=1)
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.wait(60)
        log.close()
