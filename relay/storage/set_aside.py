"""How candles are named that were set aside, so that no client can ask for them; pure.

A symbol of a client holds no `~`, so what follows one says what became of the symbol's earlier instrument.
"""

from datetime import UTC, datetime

CHECKING = "checking"
"""The mark of candles that wait for a comparison: they come back, or are set aside for good."""


def aside_name(symbol: str, mark: str) -> str:
    """Return the name under which a symbol's candles are kept once they are not the symbol's any more."""
    return f"{symbol}~{mark}"


def mark_of(moment: float) -> str:
    """Return the mark of what is set aside at a moment (Unix seconds): `20221101T000000Z`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")


def is_aside(symbol: str) -> bool:
    """Say whether this is the name of candles that were set aside."""
    return "~" in symbol


def original(symbol: str) -> str:
    """Return the symbol that candles were set aside of; the symbol itself if they were not."""
    return symbol.partition("~")[0]
