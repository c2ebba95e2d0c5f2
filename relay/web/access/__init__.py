"""Who may use the relay: tokens, origins, addresses."""
