"""`/api/v1/pools/`, `/api/v1/accounts/`, `/api/v1/leases/`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas import clock
from quotas.api import documents
from quotas.engine.accounts.view import Explanation
from quotas.engine.categories import UNANSWERED
from quotas.engine.types import AccountState, Admission
from quotas.errors import LimiterUnavailable, UnknownPool, UnknownUnit
from quotas.models import Account, Pool
from quotas.priorities import PRIORITIES
from quotas.rest import decisions
from quotas.rest.caller import Caller
from quotas.rest.fields import CostField, ReasonField, SecondsField, StrictCharField, StrictIntegerField
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.serializers import QuerySerializer, StrictSerializer
from quotas.rest.views import ApiView
from quotas.runtime.connection import accounts
from quotas.services import account_actions, last_responses, units
from quotas.services import accounts as pools
from quotas.snapshot import resolve
from quotas.times import from_unix, rfc3339

_MAX_BODY = 1_000_000


class PriorityField(serializers.Field):
    """`high`, `normal`, `low`, or a whole number from 0 (first) to 9."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, str) and data in PRIORITIES:
            return PRIORITIES[data]
        if type(data) is int and 0 <= data <= 9:
            return data
        raise serializers.ValidationError("Must be high, normal, low or a whole number from 0 to 9.")

    def to_representation(self, value: Any) -> Any:
        return value


class AcquireBody(StrictSerializer):
    cost = CostField(required=False, help_text="Units; a call counts 1 of `requests` unless it says otherwise.")
    priority = PriorityField(default=5)
    max_wait = SecondsField(default=0, max_value=60.0, help_text="Seconds to wait for an account.")
    key = StrictCharField(required=False, max_length=1024, help_text="A chat or conversation.")
    model = StrictCharField(
        required=False, max_length=200, help_text="The provider's model: a refusal of one holds up no other."
    )


class ReportBody(StrictSerializer):
    status = StrictIntegerField(required=False, min_value=100, max_value=599)
    headers = serializers.DictField(required=False)
    body = StrictCharField(required=False, allow_blank=True, max_length=_MAX_BODY)
    usage = CostField(required=False)
    error = serializers.ChoiceField(required=False, choices=[*UNANSWERED, "cancelled"])
    latency = SecondsField(required=False)
    request = StrictCharField(
        required=False,
        max_length=1024,
        help_text="Method and path, such as `POST /v1/chat`: one that is closed to every account disables none.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "status" not in attrs and "error" not in attrs:
            raise serializers.ValidationError("Tell a `status`, or an `error` where no answer came.")
        return attrs


class ReasonBody(StrictSerializer):
    reason = ReasonField()


class AcquireView(ApiView):
    """Lend one of the pool's accounts for a call."""

    scopes = {"POST": "submit"}

    @extend_schema(operation_id="acquire", request=AcquireBody, responses=documents.Lent, summary="Lend an account")
    def post(self, request: Request, pool: str) -> Response:
        asked = self.asked()
        try:
            admission = pools.acquire(pool, **asked)
        except (UnknownPool, LimiterUnavailable) as error:
            raise self.refused(pool, error) from None
        return self.answer(pool, admission)

    def asked(self) -> dict[str, Any]:
        """The arguments of `pools.acquire` that the body names."""
        body = self.body(AcquireBody)
        return {
            "cost": body.get("cost"),
            "priority": body["priority"],
            "key": body.get("key", ""),
            "model": body.get("model", ""),
            "max_wait": body["max_wait"],
            "project": self.caller.project_slug or None,
        }

    @staticmethod
    def refused(pool: str, error: UnknownPool | LimiterUnavailable) -> ProblemError:
        return _no_pool(pool) if isinstance(error, UnknownPool) else decisions.refusal(error)

    @staticmethod
    def answer(pool: str, admission: Admission) -> Response:
        """The lease, or the refusal as a problem."""
        if not admission.allowed:
            raise refusal(pool, admission)
        lender = resolve.pool_config(admission.pool or pool)
        return Response(
            {
                "lease": admission.lease,
                "account": admission.account,
                "account_id": admission.account_id,
                "pool": admission.pool,
                "base_url": lender.provider.base_url,
                "expires_in": admission.expires_in,
            }
        )


class SettleLeaseView(ApiView):
    """Tell how the call through a lease went; the first report counts."""

    scopes = {"POST": "submit"}

    @extend_schema(
        operation_id="settle_lease", request=ReportBody, responses=documents.LeaseEnd, summary="Tell how a call went"
    )
    def post(self, request: Request, lease: str) -> Response:
        body = self.body(ReportBody)
        report = pools.Report(
            body.get("status"),
            body.get("headers"),
            body.get("body"),
            body.get("usage"),
            body.get("error", ""),
            body.get("latency"),
            body.get("request", ""),
        )
        try:
            units.check(report.usage or {})
            settled = pools.settle(lease, report)
        except UnknownUnit as error:
            raise serializers.ValidationError({"usage": {error.unit: [str(error)]}}) from None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        if settled is None:
            raise NotFound("The lease is unknown or has expired; nothing was changed.", "unknown-lease")
        return Response(
            {
                "lease": settled.lease,
                "outcome": settled.outcome,
                "cooldown": settled.cooldown,
                "learned": dict(settled.learned),
            }
        )


class PoolsView(ApiView):
    """All pools, newest first."""

    scopes = {"GET": "read"}

    @extend_schema(operation_id="list_pools", parameters=[PageQuery], responses=documents.Pools, summary="All pools")
    def get(self, request: Request) -> Response:
        rows = visible_pools(self.caller).select_related("provider")
        return Response(_live(lambda: page(rows, self.query(PageQuery), lambda row: shown_pool(row, self.caller))))


class PoolView(ApiView):
    """One pool and its accounts."""

    scopes = {"GET": "read"}

    @extend_schema(operation_id="get_pool", responses=documents.Pool, summary="One pool")
    def get(self, request: Request, pool: str) -> Response:
        self.query()
        return Response(_live(lambda: shown_pool(_pool(pool, self.caller), self.caller)))


class PoolVerbView(ApiView):
    """Pause or resume a pool; audited."""

    scopes = {"POST": "operate"}

    @extend_schema(request=ReasonBody, responses=documents.Pool, summary="Pause or resume a pool")
    def post(self, request: Request, pool: str, verb: str) -> Response:
        body = self.body(ReasonBody)
        act = account_actions.pause_pool if verb == "pause" else account_actions.resume_pool
        act(_steerable(_pool(pool, self.caller), self.caller), actor=self.caller.name, reason=body["reason"])
        return Response(_live(lambda: shown_pool(_pool(pool, self.caller), self.caller)))


class ExplainQuery(QuerySerializer):
    requests = serializers.IntegerField(required=False, min_value=0, max_value=2**53 - 1)
    tokens = serializers.IntegerField(required=False, min_value=0, max_value=2**53 - 1)
    money = serializers.IntegerField(required=False, min_value=0, max_value=2**53 - 1)
    priority = serializers.CharField(default="normal", max_length=10)
    key = serializers.CharField(default="", max_length=1024, trim_whitespace=False, allow_blank=True)
    model = serializers.CharField(default="", max_length=200, trim_whitespace=False, allow_blank=True)

    def validate_priority(self, value: str) -> int:
        return PriorityField().to_internal_value(int(value) if value.isascii() and value.isdigit() else value)


class ExplainView(ApiView):
    """Which account a call would get now, and for each other one why not and until when."""

    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="explain_pool",
        parameters=[ExplainQuery],
        responses=documents.PoolExplanation,
        summary="Which account a call would get, and why",
    )
    def get(self, request: Request, pool: str) -> Response:
        query = self.query(ExplainQuery)
        cost: dict[str, int] = {unit: query[unit] for unit in ("requests", "tokens", "money") if unit in query}
        try:
            found = pools.explain(
                pool,
                cost,
                priority=query["priority"],
                key=query["key"],
                model=query["model"],
                project=self.caller.project_slug or None,
            )
        except UnknownPool:
            raise _no_pool(pool) from None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        return Response(shown_explanation(pool, found))


class AccountQuery(PageQuery):
    pool = serializers.CharField(required=False, max_length=63)


class AccountsView(ApiView):
    """All accounts, newest first."""

    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="list_accounts", parameters=[AccountQuery], responses=documents.Accounts, summary="All accounts"
    )
    def get(self, request: Request) -> Response:
        query = self.query(AccountQuery)
        rows = Account.objects.select_related("pool").defer("credential")
        if "pool" in query:
            rows = rows.filter(pool=_pool(query["pool"], self.caller))
        elif not self.caller.is_platform:
            rows = rows.filter(pool__in=visible_pools(self.caller))
        states: dict[str, dict[str, AccountState]] = {}

        def shown(row: Account) -> dict[str, Any]:
            if row.pool.name not in states:
                states[row.pool.name] = _states(row.pool.name)
            return shown_account(row, states[row.pool.name].get(str(row.pk)), self.caller)

        return Response(_live(lambda: page(rows, query, shown)))


class AccountView(ApiView):
    """One account."""

    scopes = {"GET": "read"}

    @extend_schema(operation_id="get_account", responses=documents.AccountDetail, summary="One account")
    def get(self, request: Request, account: str) -> Response:
        self.query()
        row = _account(account, self.caller)
        # It is the answer to somebody's call, perhaps of another project.
        told = self.caller.is_platform
        return Response(
            _live(lambda: {**_one(row, self.caller), "last_answer": _last_answer(account) if told else None})
        )


_VERBS: dict[str, Callable[..., None]] = {
    "clear-cooldown": account_actions.clear_cooldown,
    "trip": account_actions.trip,
    "close": account_actions.close,
    "disable": account_actions.disable,
    "enable": account_actions.enable,
}


class AccountVerbView(ApiView):
    """Clear a cooldown, trip or close a breaker, disable or enable; audited."""

    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="steer_account",
        request=ReasonBody,
        responses=documents.Account,
        parameters=[OpenApiParameter("verb", str, OpenApiParameter.PATH, enum=sorted(_VERBS))],
        summary="Clear a cooldown, trip or close a breaker, disable or enable",
    )
    def post(self, request: Request, account: str, verb: str) -> Response:
        if verb not in _VERBS:
            raise NotFound("There is nothing at this address.")
        body = self.body(ReasonBody)
        row = _account(account, self.caller)
        _steerable(row.pool, self.caller)
        _live(lambda: _VERBS[verb](row, actor=self.caller.name, reason=body["reason"]))
        return Response(_live(lambda: _one(_account(account, self.caller), self.caller)))


def refusal(pool: str, admission: Admission) -> ProblemError:
    """Why no account was lent, as a problem."""
    reasons = dict(admission.reasons)
    if admission.impossible:
        detail = f"No account of the pool {pool!r} could ever take a call of this cost."
        return ProblemError("cost-exceeds-limit", "Cost exceeds limit", 422, detail)
    if admission.disabled:
        detail = f"Every account of the pool {pool!r} is disabled."
        return ProblemError("pool-disabled", "Pool disabled", 503, detail, reasons=reasons)
    headers, when = {}, "waiting does not help until an operator acts"
    if admission.retry_after is not None:
        headers["Retry-After"] = str(decisions.whole_seconds(admission.retry_after))
        when = f"one is free in {admission.retry_after:.3f} s"
    told = ", ".join(f"{count} for {reason}" for reason, count in reasons.items())
    return ProblemError(
        "no-account-available",
        "No account available",
        429,
        f"No account of the pool {pool!r} can take the call; {when}. Passed over: {told or 'none'}.",
        headers=headers,
        retry_after=admission.retry_after,
        reasons=reasons,
    )


def visible_pools(caller: Caller) -> QuerySet[Pool]:
    """The pools that the caller's project may use; all of them for the platform."""
    rows = Pool.objects.all()
    if caller.is_platform:
        return rows
    theirs = [pk for pk, slugs in rows.values_list("pk", "projects") if slugs is None or caller.project_slug in slugs]
    return rows.filter(pk__in=theirs)


def shown_explanation(pool: str, found: Explanation) -> dict[str, Any]:
    """What `acquire` would answer, with each account of the pool and of its fallbacks in the order they are asked."""
    admission = found.admission
    status = 200 if admission else 422 if admission.impossible else 503 if admission.disabled else 429
    return {
        "pool": pool,
        "status": status,
        "chosen": admission.account,
        "chosen_pool": admission.pool if admission else None,
        "retry_after": admission.retry_after if status in (200, 429) else None,
        "accounts": [
            {
                "id": view.id,
                "name": view.name,
                "pool": one.pool,
                "available": view.available,
                "chosen": view.chosen,
                "why": "would be chosen" if view.chosen else view.reason or "another one comes first",
                "retry_after": view.wait,
                "until": _until(view.wait) if view.wait else None,
                "health": round(view.health, 4),
            }
            for one in found.pools
            for view in one.accounts
        ],
    }


def shown_account(row: Account, state: AccountState | None, caller: Caller) -> dict[str, Any]:
    """An account as the contract has it; never its credential, and to a project no texts of others' failures."""
    live = state or AccountState(str(row.pk), row.name)
    why = (row.disabled_reason or live.why) if live.state == "disabled" else live.why
    return {
        "id": str(row.pk),
        "name": row.name,
        "pool": row.pool.name,
        "state": live.state,
        "until": _until(live.until),
        "why": why,
        "health": round(live.health, 4),
        "successes": live.successes,
        "errors": dict(live.errors),
        "skips": dict(live.skips),
        "in_flight": live.in_flight,
        "concurrency": live.concurrency,
        "learned": dict(live.learned),
        "models": {name: _until(seconds) for name, seconds in live.models.items()},
        "latency": live.latency,
        "last_used": _unix(live.last_used),
        "last_error": live.last_error if caller.is_platform else "",
        "last_error_at": _unix(live.last_error_at),
    }


def shown_pool(row: Pool, caller: Caller) -> dict[str, Any]:
    states = _states(row.name)
    rows = list(row.accounts.select_related("pool").defer("credential").order_by("pk"))
    shown = [shown_account(account, states.get(str(account.pk)), caller) for account in rows]
    available = sum(account["state"] in ("available", "half_open") for account in shown)
    usable = any(account["state"] != "disabled" for account in shown)
    state = "paused" if row.paused_at else "available" if available else "limited" if usable else "disabled"
    return {
        "name": row.name,
        "provider": row.provider.name,
        "dialect": row.provider.dialect,
        "strategy": row.strategy,
        "state": state,
        "why": row.paused_reason if row.paused_at else "",
        "available": available,
        "fallback": [name for name in row.fallback if _is_theirs(name, caller)],
        **({"projects": row.projects} if caller.is_platform else {}),
        "accounts": shown,
    }


def _live(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except LimiterUnavailable as error:
        raise decisions.refusal(error) from None
    except UnknownPool:
        raise NotFound("There is no such pool.", "unknown-pool") from None


def _states(pool: str) -> dict[str, AccountState]:
    config = resolve.snapshot().pools.get(pool)
    return {} if config is None else {state.id: state for state in accounts().states(config.spec)}


def _one(row: Account, caller: Caller) -> dict[str, Any]:
    return shown_account(row, _states(row.pool.name).get(str(row.pk)), caller)


def _is_theirs(pool: str, caller: Caller) -> bool:
    held = resolve.snapshot().pools.get(pool)
    return caller.is_platform or (held is not None and held.is_open_to(caller.project_slug))


def _last_answer(account_id: str) -> dict[str, Any] | None:
    last = last_responses.of(account_id)
    if last is None:
        return None
    return {"at": rfc3339(last.at), "status": last.status, "outcome": last.outcome, "headers": dict(last.headers)}


def _pool(name: str, caller: Caller) -> Pool:
    found = visible_pools(caller).select_related("provider").filter(name=name).first()
    if found is None:
        raise _no_pool(name)
    return found


def _steerable(pool: Pool, caller: Caller) -> Pool:
    """The pool, where the caller may steer it and its accounts. Raises 403 where other projects use it, too."""
    if not caller.is_platform and not pool.is_used_only_by(caller.project_slug):
        detail = "Other projects use this pool, too: only a platform key steers it and its accounts."
        raise ProblemError("forbidden", "Forbidden", 403, detail)
    return pool


def _account(account: str, caller: Caller) -> Account:
    found = None
    if account.isascii() and account.isdigit() and len(account) < 19:
        rows = Account.objects.select_related("pool").defer("credential").filter(pool__in=visible_pools(caller))
        found = rows.filter(pk=int(account)).first()
    if found is None:
        raise NotFound("There is no such account.", "unknown-account")
    return found


def _no_pool(name: str) -> NotFound:
    return NotFound(f"There is no pool {name[:80]!r}.", "unknown-pool")


def _until(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(clock.now() + timedelta(seconds=seconds))


def _unix(moment: float | None) -> str | None:
    return None if moment is None else rfc3339(from_unix(moment))
