"""The audit log, alerts with their rules and notices, samples of accounts and queues, and people's preferences."""

from controlplane.models.account_sample import AccountSample
from controlplane.models.alert import Alert
from controlplane.models.alert_notice import AlertNotice
from controlplane.models.alert_rule import AlertRule
from controlplane.models.audit_entry import AuditEntry
from controlplane.models.preferences import Preferences
from controlplane.models.queue_sample import QueueSample

__all__ = ["AccountSample", "Alert", "AlertNotice", "AlertRule", "AuditEntry", "Preferences", "QueueSample"]
