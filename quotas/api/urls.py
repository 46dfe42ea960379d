"""Below /api/v1/: limits, pools, accounts, leases."""

from django.urls import path

from quotas.api import limits, pools

urlpatterns = [
    path("limits/check", limits.CheckView.as_view()),
    path("limits/check-batch", limits.CheckBatchView.as_view()),
    path("limits/settle", limits.SettleView.as_view()),
    path("limits/outcomes", limits.OutcomesView.as_view()),
    path("limits/leases", limits.BlocksView.as_view()),
    path("limits/leases/<str:lease>", limits.BlockView.as_view()),
    path("limits/usage", limits.UsageView.as_view()),
    path("limits/usage/history", limits.HistoryView.as_view()),
    path("limits/reset", limits.ResetView.as_view()),
    path("rate-limiter/reset", limits.ResetView.as_view()),
    path("pools", pools.PoolsView.as_view()),
    path("pools/<str:pool>", pools.PoolView.as_view()),
    path("pools/<str:pool>/acquire", pools.AcquireView.as_view()),
    path("pools/<str:pool>/explain", pools.ExplainView.as_view()),
    path("pools/<str:pool>/pause", pools.PoolVerbView.as_view(), {"verb": "pause"}),
    path("pools/<str:pool>/resume", pools.PoolVerbView.as_view(), {"verb": "resume"}),
    path("leases/<str:lease>/settle", pools.SettleLeaseView.as_view()),
    path("accounts", pools.AccountsView.as_view()),
    path("accounts/<str:account>", pools.AccountView.as_view()),
    path("accounts/<str:account>/<str:verb>", pools.AccountVerbView.as_view()),
]
