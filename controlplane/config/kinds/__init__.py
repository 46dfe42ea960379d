"""The sections of a configuration file, in the order in which they are written to SQL."""

from controlplane.config.kinds.alerts import Alerts
from controlplane.config.kinds.base import Kind
from controlplane.config.kinds.policies import Overrides, Policies
from controlplane.config.kinds.pools import Pools
from controlplane.config.kinds.providers import Providers
from controlplane.config.kinds.queues import Queues, RetryPolicies
from controlplane.config.kinds.recurring import RecurringJobs
from controlplane.config.kinds.tenants import Projects, Tiers
from controlplane.config.kinds.traffic import CostRules, Networks

ALL: tuple[Kind, ...] = (
    Tiers(),
    Projects(),
    Networks(),
    Policies(),
    Overrides(),
    CostRules(),
    Providers(),
    Pools(),
    RetryPolicies(),
    Queues(),
    RecurringJobs(),
    Alerts(),
)
