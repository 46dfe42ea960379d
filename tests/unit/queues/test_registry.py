"""What a running job knows about itself."""

from __future__ import annotations

from copy import copy
from dataclasses import fields
from typing import Any

from queues.registry import JobContext


def test_a_copy_has_all_members_and_is_another_object() -> None:
    values: dict[str, Any] = {field.name: f"value of {field.name}" for field in fields(JobContext)}
    context = JobContext(**values)
    made = copy(context)
    assert made == context
    made.user = "another"
    assert context.user == "value of user"
