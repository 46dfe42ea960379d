"""The presets are configuration like any other: they apply, and hold what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import call_command

from quotas.models import Pool

PRESETS = sorted((Path(__file__).resolve().parents[3] / "presets").glob("*.yaml"))
CREDENTIALS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TELEGRAM_BOT_TOKEN", "GITHUB_TOKEN")


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "not-a-real-one")


@pytest.mark.django_db
@pytest.mark.parametrize("preset", PRESETS, ids=[path.stem for path in PRESETS])
def test_it_applies(preset):
    call_command("apply", str(preset))
    stored = Pool.objects.get(name=preset.stem)
    assert stored.provider.dialect == preset.stem
    assert stored.accounts.count() == 1
    assert stored.limits.count() >= 1


def test_there_are_presets():
    assert [path.stem for path in PRESETS] == ["anthropic", "github", "openai", "telegram"]
