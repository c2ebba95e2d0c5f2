"""A number with what it counts, in words for people."""


def counted(number: int, noun: str) -> str:
    """Return `1 candle`, `0 candles` or `12,000 candles`: a noun whose plural ends with `s`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
