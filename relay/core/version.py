"""The name and version of the distribution, in one place; nothing else lives here."""

NAME = "market-relay"
VERSION = "0.1.0"
"""Of the relay as it is installed; what a plugin has to fit is `API_VERSION`."""
