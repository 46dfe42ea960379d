"""Value objects that are made quickly are what a frozen dataclass is."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import dataclass, field

import pytest

from quotas import events
from quotas.engine.frozen import quickly_made
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Decision, Settled
from quotas.services.limits import Check


@dataclass(frozen=True, slots=True)
class Base:
    project: str = field(default="", kw_only=True)


@quickly_made
@dataclass(frozen=True, slots=True)
class Quick(Base):
    name: str
    items: dict[str, int] = field(default_factory=dict)
    count: int = 3


def test_fields_are_set_by_position_by_name_and_by_default() -> None:
    made = Quick("a", {"b": 1}, 2, project="p")
    assert (made.name, made.items, made.count, made.project) == ("a", {"b": 1}, 2, "p")
    assert Quick(name="a") == Quick("a", {}, 3) and type(Quick("a")) is Quick
    assert Quick("a").items is not Quick("a").items
    with pytest.raises(TypeError):
        Quick()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Quick("a", {}, 3, "p")  # type: ignore[call-arg,misc]


def test_it_is_frozen_and_can_be_copied_replaced_and_pickled() -> None:
    made = Quick("a", {"b": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "c"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.name
    assert dataclasses.replace(made, name="c") == Quick("c", {"b": 1})
    assert copy.copy(made) == made == pickle.loads(pickle.dumps(made))


@pytest.mark.parametrize("kind", [Admission, AdmitRequest, CallOutcome, Decision, Settled, Check, events.CallEnded])
def test_the_arguments_are_those_of_the_fields(kind: type) -> None:
    named = {one.name: one for one in dataclasses.fields(kind)}
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    assert {one.name for one in parameters} == named.keys()
    for one in parameters:
        declared = named[one.name]
        is_optional = (declared.default, declared.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        assert (one.default is not inspect.Parameter.empty) == is_optional
        assert (one.kind is inspect.Parameter.KEYWORD_ONLY) == declared.kw_only
