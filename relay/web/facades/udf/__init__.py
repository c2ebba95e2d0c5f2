"""TradingView's UDF protocol, over the candles and instruments of all providers."""
