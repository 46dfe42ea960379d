"""`up --demo`: a simulated provider, a configuration and traffic, to try everything."""
