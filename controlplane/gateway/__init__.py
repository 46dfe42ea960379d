"""The gateway: callers send a provider's own requests here, and each is admitted, sent with an account, and settled."""
