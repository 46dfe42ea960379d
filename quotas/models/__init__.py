"""What limits, accounts and keys are made of, in SQL."""

from quotas.models.account import Account
from quotas.models.adaptive import AdaptiveState
from quotas.models.api_key import ApiKey
from quotas.models.config_version import ConfigVersion
from quotas.models.cost_rule import CostRule
from quotas.models.network import Network
from quotas.models.override import Override
from quotas.models.policy import Policy
from quotas.models.pool import Pool, PoolLimit, StickyBy
from quotas.models.project import Project
from quotas.models.provider import Provider
from quotas.models.threshold import ThresholdMark
from quotas.models.tier import Tier, TierUser
from quotas.models.usage import UsageRollup

__all__ = [
    "Account",
    "AdaptiveState",
    "ApiKey",
    "ConfigVersion",
    "CostRule",
    "Network",
    "Override",
    "Policy",
    "Pool",
    "PoolLimit",
    "StickyBy",
    "Project",
    "Provider",
    "ThresholdMark",
    "Tier",
    "TierUser",
    "UsageRollup",
]
