"""Binance's market data protocol, over the candles that the relay has of Binance."""
