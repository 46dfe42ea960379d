"""The column type of a stage: comparisons have the value in the SQL text, so that partial indexes match.

SQLite uses a partial index (`WHERE stage = 2`) only for a query that says so literally; a bound parameter could be
anything when the query is planned. Stages are a handful of known numbers, so they are written out.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.lookups import Exact, In


class StageField(models.PositiveSmallIntegerField):  # type: ignore[type-arg]  # Django's own class takes no arguments at run time
    """A small integer that is compared literally."""

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "queues.models.stage.StageField", args, kwargs


@StageField.register_lookup
class LiteralExact(Exact):
    def process_rhs(self, compiler: Any, connection: Any) -> Any:
        if self.rhs_is_direct_value():
            return str(int(self.rhs)), []
        return super().process_rhs(compiler, connection)


@StageField.register_lookup
class LiteralIn(In):
    def process_rhs(self, compiler: Any, connection: Any) -> Any:
        if self.rhs_is_direct_value():
            return "(" + ", ".join(str(int(value)) for value in self.rhs) + ")", []
        return super().process_rhs(compiler, connection)

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        return f"IN {rhs}"
