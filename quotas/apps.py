"""Who may use how much."""

from django.apps import AppConfig


class QuotasConfig(AppConfig):
    name = "quotas"
    verbose_name = "Limits and accounts"

    def ready(self) -> None:
        from quotas.services import active_subjects, denials, list_actions

        denials.connect()
        active_subjects.connect()
        list_actions.connect()
