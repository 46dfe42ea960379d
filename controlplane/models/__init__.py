"""The audit trail."""

from controlplane.models.audit_entry import AuditEntry

__all__ = ["AuditEntry"]
