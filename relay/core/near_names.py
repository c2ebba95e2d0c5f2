"""Which known name somebody most likely meant who wrote another one; pure."""

from collections.abc import Iterable
from difflib import get_close_matches

_CUTOFF = 0.7
_LEAST_PART = 3


def near_name(given: str, known: Iterable[str]) -> str:
    """Return the known name that is spelt nearly so, or else one that `given` is a part of; "" where there is none."""
    known = list(known)
    part = _bare(given)
    longer = [each for each in known if len(part) >= _LEAST_PART and part in _bare(each)]
    return next(iter(get_close_matches(given, known, 1, _CUTOFF) or longer), "")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return the end of a complaint about an unknown name: `; did you mean host?`, or nothing."""
    near = near_name(given, known)
    return f"; did you mean {near}?" if near else ""


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
