"""Numbers as upstreams write them in text: plain decimals, nothing that only Python takes for a number; pure.

The grammar is JSON's without a sign and an exponent: `0`, `7`, `0.5`, `10437.32000000`; not `007`, `.5`, `1.`, `+1`,
`-0` or `1e5`. All prices and volumes in the recordings of both providers (476,533 texts) are of it.
"""

import re
from collections.abc import Iterable, Sequence

import orjson

_MOST_CHARACTERS = 200
"""Far more than any number has, and too few for an infinite one."""
_MARKS = tuple(b",".join([b"."] * count) for count in range(9))
"""What is left of so many numbers without their digits, where each has a point."""
_PLAIN = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")


def decimal(text: object) -> float:
    """Read a plain decimal number, such as `"0.07310000"`.

    Raises `ValueError` for everything else: other types too, spaces, underscores and digits of other scripts.
    """
    if isinstance(text, str) and len(text) <= _MOST_CHARACTERS and _PLAIN.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r:.40} is not a decimal number such as '0.0731'")


def decimals(texts: Sequence[str]) -> Iterable[float]:
    """Read several numbers as `decimal` does, faster than one by one. It, or taking them, raises `ValueError`."""
    try:
        line = ",".join(texts)
        body, count = line.encode(), len(texts)
        if len(body) <= _MOST_CHARACTERS:
            marks = body.translate(None, b"0123456789")
            # With nothing but digits and points between the commas JSON's grammar is the one above.
            if count < len(_MARKS) and marks == _MARKS[count]:
                numbers: list[float] = orjson.loads(f"[{line}]")
                return numbers
            if not marks.translate(None, b".,") and len(numbers := orjson.loads(f"[{line}]")) == count:
                # A whole one is an integer here.
                return map(float, numbers)
    except (TypeError, ValueError):
        pass
    return map(decimal, texts)
