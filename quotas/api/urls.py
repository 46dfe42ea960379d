"""Below /api/v1/: limits, pools, accounts, leases."""

from django.urls import path

from quotas.api import accounts, leases, limits, pools, usage

urlpatterns = [
    path("limits/check", limits.CheckView.as_view()),
    path("limits/check-batch", limits.CheckBatchView.as_view()),
    path("limits/settle", limits.SettleView.as_view()),
    path("limits/outcomes", limits.OutcomesView.as_view()),
    path("limits/leases", limits.BlocksView.as_view()),
    path("limits/leases/<str:lease>", limits.BlockView.as_view()),
    path("limits/usage", usage.UsageView.as_view()),
    path("limits/usage/history", usage.HistoryView.as_view()),
    path("limits/reset", usage.ResetView.as_view()),
    path("rate-limiter/reset", usage.ResetView.as_view()),
    path("pools", pools.PoolsView.as_view()),
    path("pools/<str:pool>", pools.PoolView.as_view()),
    path("pools/<str:pool>/acquire", leases.AcquireView.as_view()),
    path("pools/<str:pool>/explain", pools.ExplainView.as_view()),
    path("pools/<str:pool>/pause", pools.PoolVerbView.as_view(), {"verb": "pause"}),
    path("pools/<str:pool>/resume", pools.PoolVerbView.as_view(), {"verb": "resume"}),
    path("leases/<str:lease>/settle", leases.SettleLeaseView.as_view()),
    path("accounts", accounts.AccountsView.as_view()),
    path("accounts/<str:account>", accounts.AccountView.as_view()),
    path("accounts/<str:account>/<str:verb>", accounts.AccountVerbView.as_view()),
]
