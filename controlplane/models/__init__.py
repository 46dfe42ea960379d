"""The audit log, alerts with their rules and notices, and samples of accounts."""

from controlplane.models.account_sample import AccountSample
from controlplane.models.alert import Alert
from controlplane.models.alert_notice import AlertNotice
from controlplane.models.alert_rule import AlertRule
from controlplane.models.audit_entry import AuditEntry

__all__ = ["AccountSample", "Alert", "AlertNotice", "AlertRule", "AuditEntry"]
