"""`up --demo`: a simulated provider, a configuration and traffic, to look at everything at work."""
