"""The body of a limit check: `CheckBody` says what is valid, and `question` reads it.

A body that needs no correction is read by a few lines here, at a tenth of the serializer's cost; all others go to the
serializer, which alone decides and words the mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rest_framework import serializers

from quotas.engine.categories import UNANSWERED
from quotas.engine.costs import MAX_UNITS, is_count, is_unit
from quotas.engine.dialects import DIALECTS
from quotas.engine.types import CallOutcome
from quotas.models.names import name_validator
from quotas.rest.fields import (
    MAX_SUBJECT,
    CostField,
    ReasonField,
    SecondsField,
    StrictBooleanField,
    StrictCharField,
    StrictIntegerField,
    SubjectsField,
)
from quotas.rest.serializers import StrictSerializer
from quotas.services import outcomes
from quotas.services.limits import Check
from quotas.snapshot import addresses

MAX_WAIT = 60.0
MAX_ENDPOINT = 2048


class AddressField(StrictCharField):
    """An IPv4 or IPv6 address."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            addresses.parse(text)
        except addresses.BadAddress as error:
            raise serializers.ValidationError(str(error)) from None
        return text


class SubjectBody(StrictSerializer):
    """Whom and what a check is about."""

    project = StrictCharField(required=False, allow_null=True, max_length=63, help_text="Default: the key's own.")
    user = StrictCharField(required=False, allow_null=True, max_length=MAX_SUBJECT)
    ip = AddressField(required=False, allow_null=True, max_length=64)
    endpoint = StrictCharField(required=False, allow_null=True, max_length=MAX_ENDPOINT)
    method = StrictCharField(required=False, allow_null=True, max_length=16)
    keys = SubjectsField(required=False, allow_null=True, help_text="Custom keys, such as a chat.")


class CheckBody(SubjectBody):
    cost = CostField(
        required=False,
        allow_null=True,
        help_text="A number of requests, or units; default: the cost rules, else 1 request.",
    )
    dry_run = StrictBooleanField(default=False, help_text="Decide, charge nothing.")
    max_wait = SecondsField(default=0, max_value=MAX_WAIT, help_text="Seconds to wait for capacity.")
    bypass = StrictBooleanField(default=False, help_text="Go past the limits; needs the scope `bypass`.")


class BatchedCheckBody(CheckBody):
    max_wait = SecondsField(default=0, max_value=0, help_text="A batch does not wait.")


class CheckBatchBody(StrictSerializer):
    checks = serializers.ListField(child=BatchedCheckBody(), min_length=1, max_length=1000)


class BlockBody(SubjectBody):
    """A block of units to take ahead."""

    units = StrictIntegerField(min_value=1, max_value=10_000_000)
    unit = StrictCharField(default="requests", max_length=32, validators=[name_validator])
    ttl = SecondsField(default=10, min_value=0.1, max_value=3600)


class SpentBody(StrictSerializer):
    spent = StrictIntegerField(min_value=0, max_value=10_000_000, help_text="Units that were spent of the block.")


class OutcomeBody(StrictSerializer):
    """How a call went, for adaptive policies: an answer's status, or the error where there was none."""

    status = StrictIntegerField(required=False, min_value=100, max_value=599)
    error = serializers.ChoiceField(required=False, choices=UNANSWERED)
    latency = SecondsField(required=False, max_value=86400)
    headers = serializers.DictField(
        required=False, child=serializers.CharField(allow_blank=True, max_length=8192), help_text="Of the answer."
    )
    dialect = serializers.ChoiceField(default="generic", choices=DIALECTS, help_text="How its fields are read.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "status" not in attrs and "error" not in attrs:
            raise serializers.ValidationError("Give a status, or an error.")
        return attrs


class OutcomesBody(SubjectBody, OutcomeBody):
    count = StrictIntegerField(default=1, min_value=1, max_value=1_000_000, help_text="How many calls went like this.")


class SettleBody(StrictSerializer):
    reservation = StrictCharField(max_length=100)
    actual = CostField(required=False, help_text="Units used; those that are not named: as reserved.")
    outcome = OutcomeBody(required=False, help_text="How the call went, for adaptive policies.")


class ResetBody(StrictSerializer):
    policy = StrictCharField(required=False, max_length=63, validators=[name_validator])
    scope = serializers.ChoiceField(
        required=False, choices=["ip", "user", "project", "endpoint", "queue", "custom", "global"]
    )
    key = StrictCharField(required=False, max_length=MAX_SUBJECT)
    project = StrictCharField(required=False, max_length=63)
    all = StrictBooleanField(required=False)
    reason = ReasonField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("all") is False:
            raise serializers.ValidationError({"all": "Must be true, or left out."})
        chosen = [name for name in ("policy", "scope", "key", "project") if name in attrs]
        if not chosen and "all" not in attrs:
            raise serializers.ValidationError("Name a policy, scope, key or project, or say `all`.")
        if "all" in attrs and set(chosen) - {"project"}:
            raise serializers.ValidationError({"all": "Goes with a project or alone."})
        if not attrs["reason"].strip():
            raise serializers.ValidationError({"reason": "Must say why."})
        return attrs


def question(data: Any, own_project: str) -> Check:
    """A check from its body; `own_project` is the slug that the caller's key is bound to, or empty.

    Raises DRF's `ValidationError` with the place of each mistake.
    """
    if not _is_valid_as_sent(data):
        serializer = CheckBody(data=data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
    return _check(data, own_project)


def subject(data: dict[str, Any], own_project: str) -> Check:
    """The check of a validated `SubjectBody`."""
    return _check({name: data.get(name) for name in SubjectBody._declared_fields}, own_project)


def outcome(data: dict[str, Any]) -> CallOutcome:
    """The outcome of a validated `OutcomeBody`."""
    return outcomes.outcome_of(
        status=data.get("status"),
        error=data.get("error", ""),
        latency=data.get("latency"),
        headers=data.get("headers"),
        dialect=data["dialect"],
    )


def questions(data: Any, own_project: str) -> list[Check]:
    """The checks of a batch; one mistake refuses the whole batch, with its place."""
    checks = data.get("checks")
    right = (
        len(data) == 1
        and type(checks) is list
        and 1 <= len(checks) <= 1000
        and all(type(item) is dict and not item.get("max_wait") and _is_valid_as_sent(item) for item in checks)
    )
    if not right:
        serializer = CheckBatchBody(data=data)
        serializer.is_valid(raise_exception=True)
        checks = serializer.validated_data["checks"]
    assert checks is not None
    return [_check(item, own_project) for item in checks]


def _check(data: dict[str, Any], own_project: str) -> Check:
    get = data.get
    cost = get("cost")
    return Check(
        project=get("project") or own_project or None,
        user=get("user"),
        ip=get("ip"),
        endpoint=get("endpoint"),
        method=get("method"),
        keys=get("keys") or {},
        cost={"requests": cost} if isinstance(cost, int) else cost,
        dry_run=get("dry_run", False),
        max_wait=float(get("max_wait", 0)),
        bypass=get("bypass", False),
    )


def _is_valid_as_sent(data: dict[str, Any]) -> bool:
    """True only where `CheckBody` would find nothing wrong and change nothing but the form of `cost`."""
    for name, value in data.items():
        is_valid = _VALID.get(name)
        if is_valid is None or not is_valid(value):
            return False
    return True


def _text(name: str) -> Callable[[Any], bool]:
    field = CheckBody._declared_fields[name]
    assert isinstance(field, StrictCharField)
    most = field.max_length or 0
    return lambda value: type(value) is str and 0 < len(value) <= most


def _is_cost(value: Any) -> bool:
    if type(value) is not dict:
        return is_count(value)
    return len(value) <= MAX_UNITS and all(is_unit(unit) and is_count(count) for unit, count in value.items())


def _is_address(value: Any) -> bool:
    if type(value) is not str or len(value) > 64:
        return False
    try:
        addresses.parse(value)
    except addresses.BadAddress:
        return False
    return True


def _are_keys(value: Any) -> bool:
    if type(value) is not dict or len(value) > 16:
        return False
    return all(
        0 < len(key) <= 63 and type(subject) is str and 0 < len(subject) <= MAX_SUBJECT
        for key, subject in value.items()
    )


def _is_wait(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_WAIT


def _is_flag(value: Any) -> bool:
    return type(value) is bool


_VALID: dict[str, Callable[[Any], bool]] = {
    **{name: _text(name) for name in ("project", "user", "endpoint", "method")},
    "cost": _is_cost,
    "ip": _is_address,
    "dry_run": _is_flag,
    "bypass": _is_flag,
    "keys": _are_keys,
    "max_wait": _is_wait,
}
"""By member, whether a value needs no correction."""
