"""The name and version of the distribution, in one place; nothing else lives here."""

NAME = "market-relay"
VERSION = "0.1.0"
