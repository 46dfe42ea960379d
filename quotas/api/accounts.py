"""Accounts of pools: their state, and what operators do to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.api.pools import ReasonBody, pool_named, steerable
from quotas.api.presenters import accounts as shapes
from quotas.api.presenters.accounts import account_detail, live, shown_account, states_of, visible_pools
from quotas.engine.account_state import AccountState
from quotas.models import Account
from quotas.rest.caller import Caller
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound
from quotas.rest.views import ApiView
from quotas.services import account_actions


class AccountQuery(PageQuery):
    pool = serializers.CharField(required=False, max_length=63)


class AccountsView(ApiView):
    """All accounts, newest first."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_account"})

    @extend_schema(
        operation_id="list_accounts",
        parameters=[AccountQuery],
        responses=described(shapes.Accounts),
        summary="All accounts",
    )
    def get(self, request: Request) -> Response:
        query = self.query(AccountQuery)
        rows = Account.objects.select_related("pool").defer("credential")
        if "pool" in query:
            rows = rows.filter(pool=pool_named(query["pool"], self.caller))
        elif not self.caller.is_platform:
            rows = rows.filter(pool__in=visible_pools(self.caller))
        states: dict[str, dict[str, AccountState]] = {}

        def shown(row: Account) -> dict[str, Any]:
            if row.pool.name not in states:
                states[row.pool.name] = states_of(row.pool.name)
            return shown_account(row, states[row.pool.name].get(str(row.pk)), self.caller)

        return Response(live(lambda: page(rows, query, shown)))


class AccountView(ApiView):
    """One account."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_account"})

    @extend_schema(operation_id="get_account", responses=described(shapes.AccountDetail), summary="One account")
    def get(self, request: Request, account: str) -> Response:
        self.query()
        row = _account(account, self.caller)
        return Response(live(lambda: account_detail(row, _state(row), self.caller)))


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
        responses=described(shapes.Account),
        parameters=[OpenApiParameter("verb", str, OpenApiParameter.PATH, enum=sorted(_VERBS))],
        summary="Clear a cooldown, trip or close a breaker, disable or enable",
    )
    def post(self, request: Request, account: str, verb: str) -> Response:
        if verb not in _VERBS:
            raise NotFound("There is nothing at this address.")
        body = self.body(ReasonBody)
        row = _account(account, self.caller)
        steerable(row.pool, self.caller)
        live(lambda: _VERBS[verb](row, actor=self.caller.name, reason=body["reason"]))
        return Response(live(lambda: _one(_account(account, self.caller), self.caller)))


def _one(row: Account, caller: Caller) -> dict[str, Any]:
    return shown_account(row, _state(row), caller)


def _state(row: Account) -> AccountState | None:
    return states_of(row.pool.name).get(str(row.pk))


def _account(account: str, caller: Caller) -> Account:
    found = None
    if account.isascii() and account.isdigit() and len(account) < 19:
        rows = Account.objects.select_related("pool").defer("credential").filter(pool__in=visible_pools(caller))
        found = rows.filter(pk=int(account)).first()
    if found is None:
        raise NotFound("There is no such account.", "unknown-account")
    return found
