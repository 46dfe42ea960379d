"""Pages for what limits and accounts are made of; one file per noun."""

from quotas.admin import account, api_key, cost_rule, network, override, policy, pool, project, provider, tier

__all__ = ["account", "api_key", "cost_rule", "network", "override", "policy", "pool", "project", "provider", "tier"]
