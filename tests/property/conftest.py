"""Real servers for the property tests, and no shrinking unless it is turned on: `--hypothesis-profile=shrink`."""

from hypothesis import Phase, settings

from tests.support.valkey import cluster_server, redis7_server, valkey_server  # noqa: F401

settings.register_profile("shrink", deadline=None)
settings.register_profile("sluice", deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
settings.load_profile("sluice")
