"""The admin site: its navigation and dashboard, people and their roles, the audit trail."""

from controlplane.admin import audit_entry, people

__all__ = ["audit_entry", "people"]
