"""How dates and times are written on pages: ISO 8601, with seconds."""
