"""The outermost app: interfaces, processes, subscribers."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    verbose_name = "Control plane"

    def ready(self) -> None:
        from controlplane.alerts import subscriber as alerts
        from controlplane.audit import subscriber
        from controlplane.observability import call_counts, check_counts, log_subscriber, recent_calls, stream
        from controlplane.roles import make_roles

        subscriber.connect()
        log_subscriber.connect()
        check_counts.connect()
        call_counts.connect()
        recent_calls.connect()
        stream.connect()
        alerts.connect()
        post_migrate.connect(make_roles, sender=self, dispatch_uid="sluice.roles")
