"""What clients and the relay say to each other on the WebSocket: messages as types, fields, frames; no sockets."""
