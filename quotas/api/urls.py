"""Below /api/v1/: limits."""

from django.urls import path

from quotas.api import limits

urlpatterns = [
    path("limits/check", limits.CheckView.as_view()),
    path("limits/check-batch", limits.CheckBatchView.as_view()),
    path("limits/settle", limits.SettleView.as_view()),
    path("limits/usage", limits.UsageView.as_view()),
    path("limits/reset", limits.ResetView.as_view()),
    path("rate-limiter/reset", limits.ResetView.as_view()),
]
