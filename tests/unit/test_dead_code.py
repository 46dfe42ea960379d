"""Nothing is defined that nothing uses."""

from __future__ import annotations

from pathlib import Path

from tests.tools.dead_code import ROOT, Definition, Uses, definitions, unused

ALLOWED = {
    "urlpatterns": "Django looks it up in a module of addresses.",
    "SluiceAdmin.empty_value_display": "Django looks it up on an admin class.",
    "RateLimitMiddleware.sync_capable": "Django looks it up on a middleware.",
    "RateLimitMiddleware.async_capable": "Django looks it up on a middleware.",
    "EncryptedTextField.from_db_value": "Django calls it if a field has it.",
    "ApiKeyScheme": "drf-spectacular finds its extensions by inheritance.",
    "SessionScheme": "drf-spectacular finds its extensions by inheritance.",
    "CostShape": "drf-spectacular finds its extensions by inheritance.",
    "SubjectsShape": "drf-spectacular finds its extensions by inheritance.",
    "PayloadShape": "drf-spectacular finds its extensions by inheritance.",
    "PlannedJobsShape": "drf-spectacular finds its extensions by inheritance.",
    "PriorityShape": "drf-spectacular finds its extensions by inheritance.",
    "throwaway_prefix": "For the tests of those who use Sluice.",
}
"""What a framework or a user of Sluice uses, with the reason. An entry that is no longer needed fails the test."""


def _name(definition: Definition) -> str:
    return f"{definition.owner}.{definition.name}" if definition.owner else definition.name


def test_every_definition_is_used() -> None:
    found = unused()
    assert [str(definition) for definition in found if _name(definition) not in ALLOWED] == []
    assert ALLOWED.keys() - {_name(definition) for definition in found} == set(), "not needed any more"


def test_the_finder_finds_what_is_unused(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "USED = 1\nIDLE = 2\n\n\ndef call():\n    return USED\n\n\nclass Kept:\n    def idle(self): ...\n\n\nKept()\n"
    )
    uses = Uses()
    uses.read(file)
    idle = [one.name for one in definitions(file) if not (uses.local[file][one.name] or uses.anywhere[one.name])]
    assert idle == ["IDLE", "call", "idle"]
    assert ROOT.joinpath("queues").is_dir()
