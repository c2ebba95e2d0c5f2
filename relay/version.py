"""The version of the distribution, in one place; nothing else lives here."""

VERSION = "0.1.0"
