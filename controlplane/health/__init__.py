"""Is this process alive, and can the whole do its work."""
