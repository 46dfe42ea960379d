"""The servers of one run of `bench.gateway`: Redis, a provider, the gateway, a bare pass-through, LiteLLM's proxy."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.rest_check import SERVE
from tests.support.postgres import run_postgres
from tests.support.valkey import free_port, run_server, valkey_binary, wait_for

ROOT = Path(__file__).resolve().parent.parent
PATH = "/gateway/llm/v1/chat/completions"
PREPARE = """
import sys
import django; django.setup()
from django.core.management import call_command
call_command('migrate', verbosity=0)
from controlplane import config
config.apply(sys.argv[1], actor='bench')
from quotas.models import Project
from quotas.services import api_keys
print(api_keys.create('bench', ['call', 'read'], project=Project.objects.get(), actor='bench')[1])
"""
LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {model: openai/gpt-4o-mini, api_base: "%s/v1", api_key: sk-provider}
general_settings: {master_key: sk-bench}
"""
CHAT = {"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "word " * 40}]}


def configuration(provider: str, accounts: int = 1, policies: Sequence[dict[str, Any]] = (), **pool: Any) -> str:
    return json.dumps(
        {
            "version": 1,
            "projects": [{"slug": "bench"}],
            "providers": [{"name": "p", "dialect": "openai", "base_url": provider, "timeout": "300s"}],
            "pools": [
                {
                    "name": "llm", "provider": "p", **pool,
                    "accounts": [
                        {"name": f"a{number}", "credential_env": f"BENCH_KEY_{number}"} for number in range(1, accounts + 1)
                    ],
                }
            ],
            "policies": [
                {"name": "hourly", "scope": "user", "algorithm": "sliding_window", "limit": 10**9, "window": "1h"},
                {"name": "tokens", "scope": "project", "unit": "tokens", "algorithm": "token_bucket", "limit": 10**9, "window": "1h"},
                *policies,
            ],
        }
    )  # fmt: skip


@contextmanager
def process(command: list[str], environ: dict[str, str], port: int, seconds: float = 90.0) -> Iterator[int]:
    """Its process group, when it listens."""
    started = subprocess.Popen(
        command, cwd=ROOT, env=environ, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _listens(port) or started.poll() is not None, seconds)
        assert started.poll() is None, command
        yield started.pid
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def memory_of(group: int) -> float:
    """MiB of resident memory of the largest process of a group, and of that one only: granian's parent is another."""
    most = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                status = (stat.parent / "status").read_text()
                most = max(most, int(re.search(r"VmRSS:\s+(\d+)", status)[1]))  # type: ignore[index]
        except (FileNotFoundError, TypeError):
            continue
    return most / 1024


class Yard:
    """The servers of one run. `postgres`: SQL is a PostgreSQL that is started here, and not a SQLite file."""

    def __init__(self, stack: ExitStack, directory: str, *, postgres: bool = False) -> None:
        self._stack, self.directory = stack, Path(directory)
        server = stack.enter_context(run_server(valkey_binary()))
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")},
            "SLUICE_DATA_DIR": directory, "SLUICE_SECRET_KEY": "bench" * 12, "REDIS_URL": server.unix_url,
            "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=", "SLUICE_LOG_LEVEL": "ERROR",
            "DJANGO_SETTINGS_MODULE": "controlplane.settings", "PYTHONPATH": str(ROOT),
            **{f"BENCH_KEY_{number}": f"sk-bench-{number}" for number in range(1, 9)},
        }  # fmt: skip
        if postgres:
            self.environ["DATABASE_URL"] = stack.enter_context(run_postgres())
        (self.directory / "serve.py").write_text(SERVE)

    def provider(self) -> str:
        port = free_port()
        self._stack.enter_context(
            process([sys.executable, "-m", "bench.gateway_provider", str(port)], self.environ, port)
        )
        return f"http://127.0.0.1:{port}"

    def gateway(self, document: str) -> tuple[int, int, str]:
        """Port, process group and API key."""
        key = self.prepared(document)
        port = free_port()
        command = [sys.executable, "-m", "controlplane.web", "--port", str(port)]
        return port, self._stack.enter_context(process(command, self.environ, port)), key

    def prepared(self, document: str) -> str:
        """An API key, after the configuration was applied."""
        made = subprocess.run(
            [sys.executable, "-c", PREPARE, document], cwd=ROOT, env=self.environ, check=True, capture_output=True, text=True
        )  # fmt: skip
        return made.stdout.split()[-1]

    def bare(self, provider: str) -> tuple[int, int]:
        return self._served("bench.gateway_bare:application", {**self.environ, "PROVIDER": provider})

    def _served(self, target: str, environ: dict[str, str]) -> tuple[int, int]:
        port = free_port()
        command = [sys.executable, str(self.directory / "serve.py"), target, "asgi", str(port)]
        return port, self._stack.enter_context(process(command, environ, port))

    def starlette(self, python: str, provider: str) -> tuple[int, int]:
        port = free_port()
        environ = {name: value for name, value in self.environ.items() if name != "PYTHONPATH"}
        command = [python, str(ROOT / "bench" / "gateway_starlette.py"), str(port)]
        return port, self._stack.enter_context(process(command, {**environ, "PROVIDER": provider}, port))

    def litellm(self, program: str, provider: str) -> tuple[int, int]:
        port = free_port()
        file = self.directory / "litellm.yaml"
        file.write_text(LITELLM % provider)
        command = [program, "--config", str(file), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        environ = {name: value for name, value in self.environ.items() if name not in ("PYTHONPATH", "REDIS_URL")}
        return port, self._stack.enter_context(process(command, environ, port, 180))
