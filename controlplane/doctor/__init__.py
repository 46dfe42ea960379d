"""Looks an instance over and says what to do about what it finds."""

from controlplane.doctor.finding import Finding, Level
from controlplane.doctor.rounds import examine

__all__ = ["Finding", "Level", "examine"]
