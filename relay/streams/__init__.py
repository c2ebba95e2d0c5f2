"""Live streams: the candle contract, who subscribes, and the way from one update to many sockets."""
