"""Examines an instance and says what to do."""

from controlplane.doctor.checks import examine
from controlplane.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
