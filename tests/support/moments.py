"""Moments as tests write them."""

from datetime import UTC, datetime


def at(text: str) -> int:
    """Return Unix seconds of a moment in UTC, `2026-01-14 12:00`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
