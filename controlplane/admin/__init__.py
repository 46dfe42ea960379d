"""The admin site: its navigation and dashboard, people and their roles, the audit trail, alerts."""

from controlplane.admin import alert, alert_rule, audit_entry, people, role

__all__ = ["alert", "alert_rule", "audit_entry", "people", "role"]
