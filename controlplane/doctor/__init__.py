"""Looks an instance over and says what to do about what it finds."""

from controlplane.doctor.checks import examine
from controlplane.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
