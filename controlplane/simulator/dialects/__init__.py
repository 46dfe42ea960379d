"""The providers that can be simulated."""

from controlplane.simulator.dialects.anthropic import Anthropic
from controlplane.simulator.dialects.base import Dialect
from controlplane.simulator.dialects.gemini import Gemini
from controlplane.simulator.dialects.generic import Generic
from controlplane.simulator.dialects.github import GitHub
from controlplane.simulator.dialects.openai import OpenAI
from controlplane.simulator.dialects.telegram import Telegram

DIALECTS: dict[str, type[Dialect]] = {
    kind.name: kind for kind in (OpenAI, Anthropic, Gemini, Telegram, GitHub, Generic)
}

__all__ = ["DIALECTS", "Dialect"]
