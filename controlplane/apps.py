"""The outermost app: interfaces, processes, subscribers."""

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    verbose_name = "Control plane"

    def ready(self) -> None:
        from controlplane import list_actions
        from controlplane.alerts import subscriber as alerts
        from controlplane.audit import subscriber
        from controlplane.observability import call_counts, check_counts, log_subscriber, recent_calls, stream
        from controlplane.roles import make_roles

        _name_people()
        subscriber.connect()
        log_subscriber.connect()
        check_counts.connect()
        call_counts.connect()
        recent_calls.connect()
        stream.connect()
        alerts.connect()
        list_actions.connect()
        if settings.TRACING:
            _trace()
        post_migrate.connect(make_roles, sender=self, dispatch_uid="sluice.roles")


def _name_people() -> None:
    """Pages and messages say person and role, as the navigation does, where Django's models say user and group."""
    from django.contrib.auth.models import Group, User

    for model, one, many in ((User, "person", "people"), (Group, "role", "roles")):
        model._meta.verbose_name, model._meta.verbose_name_plural = one, many
    User._meta.get_field("groups").verbose_name = "roles"


def _trace() -> None:
    """Imported where it is used: nothing of OpenTelemetry is loaded while nothing is traced."""
    try:
        from controlplane.observability import tracing
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: pip install 'sluice[otel]'."
        ) from error
    tracing.start()
