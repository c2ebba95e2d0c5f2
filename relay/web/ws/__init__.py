"""The WebSocket: its route, connections and subscriptions."""
