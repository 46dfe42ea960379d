"""Pools: their state, why they would choose an account, pause and resume."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.api.leases import PriorityField
from quotas.api.presenters import accounts as shapes
from quotas.api.presenters.accounts import live, no_pool, shown_explanation, shown_pool, visible_pools
from quotas.engine.costs import MAX_COST
from quotas.errors import LimiterUnavailable, UnknownPool
from quotas.models import Pool
from quotas.rest import decisions
from quotas.rest.caller import Caller
from quotas.rest.fields import ReasonField
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import ProblemError
from quotas.rest.serializers import QuerySerializer, StrictSerializer
from quotas.rest.views import ApiView
from quotas.services import account_actions
from quotas.services import accounts as pools


class ReasonBody(StrictSerializer):
    reason = ReasonField()


class PoolsView(ApiView):
    """All pools, newest first."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_pool"})

    @extend_schema(
        operation_id="list_pools", parameters=[PageQuery], responses=described(shapes.Pools), summary="All pools"
    )
    def get(self, request: Request) -> Response:
        rows = visible_pools(self.caller).select_related("provider")
        return Response(live(lambda: page(rows, self.query(PageQuery), lambda row: shown_pool(row, self.caller))))


class PoolView(ApiView):
    """One pool and its accounts."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_pool"})

    @extend_schema(operation_id="get_pool", responses=described(shapes.Pool), summary="One pool")
    def get(self, request: Request, pool: str) -> Response:
        self.query()
        return Response(live(lambda: shown_pool(pool_named(pool, self.caller), self.caller)))


class PoolVerbView(ApiView):
    """Pause or resume a pool; audited."""

    scopes = {"POST": "operate"}

    @extend_schema(request=ReasonBody, responses=described(shapes.Pool), summary="Pause or resume a pool")
    def post(self, request: Request, pool: str, verb: str) -> Response:
        body = self.body(ReasonBody)
        act = account_actions.pause_pool if verb == "pause" else account_actions.resume_pool
        act(steerable(pool_named(pool, self.caller), self.caller), actor=self.caller.name, reason=body["reason"])
        return Response(live(lambda: shown_pool(pool_named(pool, self.caller), self.caller)))


class ExplainQuery(QuerySerializer):
    requests = serializers.IntegerField(required=False, min_value=0, max_value=MAX_COST)
    tokens = serializers.IntegerField(required=False, min_value=0, max_value=MAX_COST)
    money = serializers.IntegerField(required=False, min_value=0, max_value=MAX_COST)
    priority = serializers.CharField(default="normal", max_length=10)
    key = serializers.CharField(default="", max_length=1024, trim_whitespace=False, allow_blank=True)
    model = serializers.CharField(default="", max_length=200, trim_whitespace=False, allow_blank=True)

    def validate_priority(self, value: str) -> int:
        return PriorityField().to_internal_value(int(value) if value.isascii() and value.isdigit() else value)


class ExplainView(ApiView):
    """Which account a call would get now, and for each other one why not and until when."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_pool"})

    @extend_schema(
        operation_id="explain_pool",
        parameters=[ExplainQuery],
        responses=described(shapes.PoolExplanation),
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
            raise no_pool(pool) from None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        return Response(shown_explanation(pool, found))


def pool_named(name: str, caller: Caller) -> Pool:
    found = visible_pools(caller).select_related("provider").filter(name=name).first()
    if found is None:
        raise no_pool(name)
    return found


def steerable(pool: Pool, caller: Caller) -> Pool:
    """The pool, if the caller may steer it and its accounts. Raises 403 if other projects use it, too."""
    if not caller.is_platform and not pool.is_used_only_by(caller.project_slug):
        detail = "Other projects use this pool, too: only a platform key steers it and its accounts."
        raise ProblemError("forbidden", "Forbidden", 403, detail)
    return pool
