"""One symbol that may name another instrument than before: the sign that was given, and how far its check is."""

import asyncio

from relay.core.intervals import length_s
from relay.core.spans import FOREVER
from relay.history.identity import Verdict, longer_interval
from relay.history.requests import CandleSource

_LONGEST_PAUSE_S = 3600.0

Identity = tuple[str, str]
"""The names of a provider and of one of its symbols."""


class SymbolCheck:
    """One symbol that is being checked: what opened earlier than `before`, of one interval or of all.

    With `is_parted` what opened later is of the later instrument, if there are two.
    """

    __slots__ = (
        "absent_at",
        "before",
        "differs_at",
        "interval",
        "is_aside",
        "is_compared",
        "is_parted",
        "patience_ends",
        "retry_at",
        "source",
        "symbol",
        "task",
        "verdict",
    )

    def __init__(self, source: CandleSource, symbol: str) -> None:
        self.source = source
        self.symbol = symbol
        self.interval: str | None = None
        self.differs_at = ""
        self.before = FOREVER
        self.absent_at: int | None = None
        self.is_aside = False
        self.is_parted = True
        self.verdict: Verdict | None = None
        self.is_compared = asyncio.Event()
        self.patience_ends = self.retry_at = 0.0
        self.task: asyncio.Task[None] | None = None

    @property
    def identity(self) -> Identity:
        return self.source.name, self.symbol

    @property
    def changed_at(self) -> int | None:
        """The open time before which all is of the earlier instrument, by the sign that was given; None if unknown."""
        if self.absent_at is not None:
            return self.absent_at
        return self.before if self.interval is not None and self.is_parted and self.before < FOREVER else None

    @property
    def is_faint(self) -> bool:
        """Say whether there is no sign but that nobody watched."""
        return self.interval is None and self.absent_at is None and not self.is_aside

    def pause_s(self, again_s: float) -> float:
        """Return how long to wait before the second comparison: so long that a sliding history has moved on.

        `again_s` is the least.
        """
        verdict, interval = self.verdict, self.differs_at
        if verdict is None or verdict.begins is None:
            return again_s
        is_confirmed = longer_interval(interval, self.source.info.intervals) is not None
        if is_confirmed or length_s(interval) > _LONGEST_PAUSE_S:
            return again_s
        return max(again_s, length_s(interval) + 1.0)
