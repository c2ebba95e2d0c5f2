"""The process: how it starts, reloads and ends, TLS, the service manager."""
