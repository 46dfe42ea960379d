"""While nothing is traced, nothing of OpenTelemetry's SDK is loaded; without the extra, a clear error."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotas import tracing

ROOT = Path(__file__).resolve().parents[3]
LOADED = """
import sys, django
django.setup()
import controlplane.application, queues.worker.running
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))])
"""
"""redis-py imports the SDK's metrics wherever the SDK is installed."""


def python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings", **environ}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)


def test_nothing_is_loaded_while_nothing_is_traced() -> None:
    done = python(LOADED)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(importlib.util.find_spec("opentelemetry.sdk") is not None, reason="the extra is installed")
def test_an_endpoint_without_the_extra_says_what_is_missing() -> None:
    done = python(LOADED, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert done.returncode != 0 and "pip install 'sluice[otel]'" in done.stderr


def test_spans_cost_nothing_and_say_nothing_while_off() -> None:
    assert not tracing.is_on() and tracing.ids() == {} and tracing.headers() == {}
    with tracing.span("call", "client") as outer, tracing.of_job("j", "t", {}, datetime.now(UTC)) as inner:
        assert outer is inner
        inner.note({"status": 200}, error="server")
