"""Another relay as a provider: its streams over one WebSocket, its history and its instruments over HTTP."""

from providers.relay.provider import RelayProvider

__all__ = ["RelayProvider"]
