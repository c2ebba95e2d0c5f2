"""What a refusal says about the plan's limits, in whatever words; pure."""

import re
from enum import Enum
from typing import NamedTuple

_SPANS = re.compile(r"\b(?:(minutes?)|(days?|daily|today|midnight|24 ?h(?:ours)?))\b", re.IGNORECASE)
_LIMIT = re.compile(r"\blimit\b[^.\d]{0,40}(\d{1,9})\b", re.IGNORECASE)


class StatedSpan(Enum):
    """Which limit is meant."""

    MINUTE = "minute"
    DAY = "day"


class Stated(NamedTuple):
    """Which limit is spent and how many credits it has, each None where that is not said."""

    span: StatedSpan | None
    limit: int | None


def stated_limit(message: str) -> Stated:
    """Read a refusal such as "You have run out of API credits for the day. 1316 were used, the limit being 800"."""
    span = _SPANS.search(message)
    if span is None:
        return Stated(None, None)
    limit = _LIMIT.search(message.replace(",", ""))
    return Stated(StatedSpan.MINUTE if span[1] else StatedSpan.DAY, int(limit[1]) if limit else None)
