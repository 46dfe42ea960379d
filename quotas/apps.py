"""Who may use how much."""

from django.apps import AppConfig


class QuotasConfig(AppConfig):
    name = "quotas"
    verbose_name = "Limits and accounts"

    def ready(self) -> None:
        from quotas.services import denials, touched

        denials.connect()
        touched.connect()
