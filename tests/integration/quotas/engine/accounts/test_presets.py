"""The presets are configuration like any other: they can be applied, and have the stated effect."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from controlplane.paths import PACKAGE_DIR
from quotas.models import Pool

PRESETS = sorted((PACKAGE_DIR / "presets").glob("*.yaml"))
CREDENTIALS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TELEGRAM_BOT_TOKEN", "GITHUB_TOKEN", "GEMINI_API_KEY")


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "not-a-real-one")


@pytest.mark.django_db
@pytest.mark.parametrize("preset", PRESETS, ids=[path.stem for path in PRESETS])
def test_it_applies(preset):
    call_command("apply", f"preset:{preset.stem}")
    stored = Pool.objects.get(name=preset.stem)
    assert stored.provider.dialect == preset.stem
    assert stored.accounts.count() == 1
    assert stored.limits.count() >= 1


def test_there_are_presets():
    assert [path.stem for path in PRESETS] == ["anthropic", "gemini", "github", "openai", "telegram"]


def test_an_unknown_preset_is_refused_with_the_names_that_exist():
    with pytest.raises(CommandError, match="anthropic, gemini, github, openai, telegram"):
        call_command("apply", "preset:opnai")
