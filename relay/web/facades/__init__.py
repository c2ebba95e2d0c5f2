"""Facades: the relay's candles in the protocols of other services, for programs that are written against those."""
