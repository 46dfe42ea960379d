"""Whether this process is alive, and whether the instance can work."""
