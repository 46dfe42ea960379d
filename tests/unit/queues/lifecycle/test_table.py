"""Only `queues.lifecycle` writes a job's stage and status, and docs/state-machine.md lists its transitions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from queues.lifecycle import acceptance, delivery, dependants, loss, operators, waiting
from queues.lifecycle.table import TRANSITIONS
from queues.states import Stage

ROOT = Path(__file__).resolve().parents[4]
COLUMNS = {"stage", "status"}
RAW_WRITE = re.compile(r"(UPDATE\s+\"?queues_job\"?\s+SET|INSERT\s+INTO\s+\"?queues_job\"?[\s(])", re.IGNORECASE)
MODULES = (acceptance, delivery, dependants, loss, operators, waiting)


def writes(source: str) -> Iterator[int]:
    """Lines that write the columns: attributes, `update`, lists of `update_fields` and `bulk_update`, new rows, raw SQL."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in (part for one in targets for part in ast.walk(one)):
                if isinstance(target, ast.Attribute) and target.attr in COLUMNS and not _is_self(target):
                    yield node.lineno
        elif isinstance(node, ast.Call):
            if _call_writes(node):
                yield node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and RAW_WRITE.search(node.value):
            yield node.lineno


def _is_self(target: ast.Attribute) -> bool:
    return isinstance(target.value, ast.Name) and target.value.id == "self"


def _call_writes(node: ast.Call) -> bool:
    function = node.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    named = {keyword.arg for keyword in node.keywords}
    if name == "update" and named & COLUMNS:
        return True
    if name == "Job" and (named & COLUMNS or None in named):
        return True
    if name in ("bulk_update", "save", "setattr"):
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        return any(isinstance(part, ast.Constant) and part.value in COLUMNS for one in values for part in ast.walk(one))
    return name in ("bulk_create", "create", "get_or_create") and ast.unparse(function).startswith("Job.objects.")


def offences() -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}"
        for package in ("queues", "controlplane")
        for path in sorted((ROOT / package).rglob("*.py"))
        if not {"migrations", "lifecycle", "simulator"} & set(path.parts)
        for line in writes(path.read_text())
    ]


def test_nothing_else_writes_stage_or_status() -> None:
    assert offences() == []


@pytest.mark.parametrize(
    "source",
    [
        "job.stage = 2",
        "job.status, job.reason = 'dead', ''",
        "rows.update(stage=2)",
        "rows.update(status='dead')",
        "job.save(update_fields=['status'])",
        "Job.objects.bulk_update(jobs, ['reason', 'stage'])",
        "Job(type='x', stage=2)",
        "Job(**fields)",
        "Job.objects.create(type='x')",
        "setattr(job, 'stage', 2)",
        "cursor.execute('UPDATE queues_job SET stage=2')",
        "f'UPDATE \"queues_job\" SET {columns}'",
    ],
)
def test_each_way_of_writing_is_found(source: str) -> None:
    assert list(writes(source))


def test_the_page_lists_the_transitions_of_the_code() -> None:
    page = (ROOT / "docs" / "state-machine.md").read_text()
    listed = [line for line in page.splitlines() if re.match(r"\| `[a-z_]+` \| [a-z`, ]+ → ", line)]
    assert sorted(listed) == sorted(row for rule in TRANSITIONS.values() for row in rule.rows())


def test_every_function_that_writes_a_stage_is_a_registered_transition() -> None:
    named = {f"{module.__name__}.{name}" for module in MODULES for name in TRANSITIONS if hasattr(module, name)}
    assert len(named) == len(TRANSITIONS)


def test_every_stage_is_entered_and_left() -> None:
    entered = {stage for rule in TRANSITIONS.values() for stage in rule.targets}
    left = {stage for rule in TRANSITIONS.values() for stage in rule.sources}
    assert entered == left == set(Stage)
