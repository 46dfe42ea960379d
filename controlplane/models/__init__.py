"""The audit trail, alerts, and who is told of them."""

from controlplane.models.alert import Alert
from controlplane.models.alert_notice import AlertNotice
from controlplane.models.alert_rule import AlertRule
from controlplane.models.audit_entry import AuditEntry

__all__ = ["Alert", "AlertNotice", "AlertRule", "AuditEntry"]
