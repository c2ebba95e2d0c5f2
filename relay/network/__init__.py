"""Connections: how our own are made and bounded, and what is counted of them and of those of clients."""
