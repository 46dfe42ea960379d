"""The outermost app: faces, processes, subscribers."""

from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    verbose_name = "Control plane"

    def ready(self) -> None:
        from controlplane.audit import subscriber

        subscriber.connect()
