"""The past: candles from the store, else from providers, and how a subscription is joined to its stream."""
