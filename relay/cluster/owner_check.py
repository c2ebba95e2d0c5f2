"""Holds history that another relay gave against what the provider says itself, now and then; asks nobody."""

import logging
from collections.abc import Sequence

from relay.core.clock import Clock
from relay.core.intervals import next_open
from relay.core.model import Candle, StreamKey
from relay.telemetry.rare_warning import RareWarning

log = logging.getLogger(__name__)

CHECK_EVERY_S = 300.0
SETTLED_S = 120.0
"""A provider may still change what closed more recently: one answer is then older than the other, and neither wrong."""


class OwnerCheck:
    """Counts candles that were compared, and those that the provider does not say, for one provider.

    Relays believe each other: this notices one that gives wrong candles, by mistake or on purpose, and others on the
    bus that say they are owners. It does not notice what is given only once.
    """

    def __init__(self, provider: str, clock: Clock, every_s: float = CHECK_EVERY_S) -> None:
        self.compared = self.contradicted = 0
        self._provider = provider
        self._clock = clock
        self._every_s = every_s
        self._next_at = clock.monotonic() + every_s
        self._warning = RareWarning(log, "cluster_contradicted", provider=provider)

    def is_due(self) -> bool:
        """Say whether an answer is to be compared now; then the next one is due later, whatever comes of it."""
        now = self._clock.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + self._every_s
        return True

    def judge(self, key: StreamKey, given: Sequence[Candle], own: Sequence[Candle], now: float, relay: str) -> None:
        """Compare what a relay gave with the provider's own answer, as far as both have a candle that is settled."""
        there = {candle.time: candle for candle in given}
        settled = [
            (there[candle.time], candle)
            for candle in own
            if candle.time in there and next_open(key.interval, candle.time) + SETTLED_S <= now
        ]
        self.compared += len(settled)
        wrong = [mine for theirs, mine in settled if tuple(theirs) != tuple(mine)]
        self.contradicted += len(wrong)
        if wrong:
            self._warning.say(
                "relay %s gave %d of %d candles of %s that are other ones at %s itself, the first at %d; if the "
                "provider did not change them, look who can write to NATS, and at that relay's settings",
                relay,
                len(wrong),
                len(settled),
                key,
                self._provider,
                wrong[0].time,
                relay=relay,
            )
