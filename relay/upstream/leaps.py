"""Holds back a price that is far from all before it until another one confirms it; pure."""

from collections.abc import Callable, Sequence

from relay.core.model import Candle, PriceUpdate, StreamKey

FAR = 5.0
"""So many times what was told last, or so small a part of it, a price is taken for a mistake until it is confirmed."""


class Leaps:
    """Judges the updates of one feed, stream by stream; prices are above zero.

    A price that leaps waits for the next update of its stream. If that one is near the new price, both are returned: a
    crash and a redenomination come one update late. If it is near the earlier price, the leap was a mistake, and
    `on_drop` is called with it. If the update would have closed a candle, that stays open, and the relay asks history.
    The first update of a stream is accepted.
    """

    def __init__(self, on_drop: Callable[[PriceUpdate], None]) -> None:
        self._on_drop = on_drop
        self._near: dict[StreamKey, tuple[float, float]] = {}
        self._held: dict[StreamKey, PriceUpdate] = {}

    def passes(self, update: PriceUpdate) -> bool:
        """Say whether an update is told at once; `weigh` one that is not. On the way of every update."""
        key, candle, is_closed, _, _, _, _ = update
        near = self._near.get(key)
        if near is not None:
            if candle.low < near[0] or candle.high > near[1]:
                return False
            if not (is_closed or self._held):
                return True
        if near is None or is_closed:
            self.believe(key, candle)
        if self._held and (held := self._held.pop(key, None)) is not None:
            self._on_drop(held)
        return True

    def weigh(self, update: PriceUpdate) -> Sequence[PriceUpdate]:
        """Return what is told now that an update has come that leaps: it and the one before, or nothing yet."""
        key, candle = update.key, update.candle
        held = self._held.pop(key, None)
        if held is not None:
            least, most = _around(held.candle)
            if least <= candle.low and candle.high <= most:
                self.believe(key, candle)
                return (held, update)
            self._on_drop(held)
        self._held[key] = update
        return ()

    def believe(self, key: StreamKey, candle: Candle) -> None:
        """Take the prices of a candle for those that later ones have to be near to."""
        self._near[key] = _around(candle)


def _around(candle: Candle) -> tuple[float, float]:
    return candle.low / FAR, candle.high * FAR
