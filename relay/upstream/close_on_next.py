"""Closes candles for venues that do not say when one is closed: it is when a newer one begins; pure."""

from collections.abc import Iterable, Sequence

from relay.core.model import Candle, PriceUpdate, StreamKey


class CloseOnNext:
    """Remembers the newest candle of each stream and closes it when the next one begins.

    The values heard last have to be the final ones. Where that is in doubt call `forget`: when a stream is subscribed,
    again too, and after lost messages. What is not closed here the relay asks history for.
    """

    def __init__(self) -> None:
        self._newest: dict[StreamKey, PriceUpdate] = {}

    def take(self, key: StreamKey, candle: Candle, ts_event_ms: int | None = None) -> Sequence[PriceUpdate]:
        """Return what one state of a candle says: the candle before it, closed, if this one is newer; then this one.

        A candle that is older than the newest one is closed as well: the venue changed it afterwards.
        """
        before = self._newest.get(key)
        if before is not None and candle.time < before.candle.time:
            return (PriceUpdate(key, candle, True, ts_event_ms),)
        update = self._newest[key] = PriceUpdate(key, candle, False, ts_event_ms)
        if before is None or candle.time == before.candle.time:
            return (update,)
        return (PriceUpdate(key, before.candle, True, ts_event_ms), update)

    def forget(self, keys: Iterable[StreamKey] | None = None) -> None:
        """Leave the candles of these streams open, of all without `keys`: messages about them may be missing."""
        if keys is None:
            self._newest.clear()
            return
        for key in tuple(keys):
            self._newest.pop(key, None)
