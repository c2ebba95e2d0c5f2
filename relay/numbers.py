"""Numbers as upstreams write them in text: plain decimals, nothing that only Python takes for a number; pure."""

from collections.abc import Iterator, Sequence

_MOST_CHARACTERS = 200
"""Far more than any number has, and too few for an infinite one."""


def decimal(text: object) -> float:
    """Read a plain decimal number, such as `"0.07310000"`: ASCII digits, one point at most, no sign, no exponent.

    Raises `ValueError` for everything else: other types too, spaces, underscores and digits of other scripts.
    """
    if isinstance(text, str) and len(text) <= _MOST_CHARACTERS and text.isascii() and _has_digits(text):
        return float(text)
    raise ValueError(f"{text!r:.40} is no decimal number")


def _has_digits(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def decimals(texts: Sequence[str]) -> Iterator[float]:
    """Read several numbers as `decimal` does, faster than one by one. It, or taking them, raises `ValueError`."""
    try:
        joined = "".join(texts).encode()
    except (TypeError, UnicodeEncodeError):
        joined = b" "
    # The fastest of several ways to see that there is nothing else; `float` refuses what is empty or has two points.
    if joined.translate(None, b"0123456789.") or len(joined) > _MOST_CHARACTERS:
        return map(decimal, texts)
    return map(float, texts)
