"""Starts child processes, keeps them running and stops them in order."""

from controlplane.supervisor.child import Child, ChildSpec
from controlplane.supervisor.errors import ChildGivenUp, ConditionTimeout, Stopped, SupervisorError
from controlplane.supervisor.supervisor import Supervisor

__all__ = ["Child", "ChildGivenUp", "ChildSpec", "ConditionTimeout", "Stopped", "Supervisor", "SupervisorError"]
