"""A recorded provider under its own name: its streams, its history up to now, and the time that it is there."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from providers.replay.clock import ReplayClock
from providers.replay.played_stream import PlayedStream, Recording
from providers.replay.players import Players
from relay import (
    Candle,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    hookimpl,
    next_open,
)

ASSET_CLASS = "recorded"
"""Of instruments of which no list is recorded; our own choice."""


class ReplayProvider:
    """Plays what is recorded of one provider, by a clock that all providers of the recording share.

    `instruments` are those that the recording describes; of the others only the symbol is known.
    """

    def __init__(
        self, name: str, recording: Recording, clock: ReplayClock, instruments: Mapping[str, Instrument]
    ) -> None:
        self._clock = clock
        by_symbol: dict[str, list[StreamKey]] = {}
        for key in sorted(recording.streams[name], key=lambda key: _length(key.interval)):
            by_symbol.setdefault(key.symbol, []).append(key)
        self._streams = {
            key: PlayedStream(recording, name, key, alike) for alike in by_symbol.values() for key in alike
        }
        self._instruments = [
            (instruments.get(symbol) or _unknown(symbol))._replace(
                intervals=tuple(key.interval for key in alike), status="trading"
            )
            for symbol, alike in sorted(by_symbol.items())
        ]
        self._info = ProviderInfo(
            name=name,
            api=(2, 1),
            title=f"the recording of {name}",
            asset_classes=tuple(sorted({one.asset_class for one in self._instruments})),
            intervals=tuple(sorted({key.interval for key in self._streams}, key=_length)),
            attribution=f"Replay of recorded candles, at {clock.speed:g} times the speed",
            # What is over is known at once, and an answer about the present is old when time goes on.
            close_grace_s=0.0,
            fresh_s=0.0,
            history_has_open=True,
            is_recorded=True,
            compare_after_s=(),
            calls_at_once=1,
            candle_extras=(),
        )

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        """Say whose recording this is."""
        return self._info

    @hookimpl
    def relay_clock(self) -> Callable[[], float]:
        """Give the time of the replay."""
        return self._clock.now

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        """Return the instruments that are recorded, each with the intervals that are."""
        return self._instruments

    @hookimpl
    async def relay_candles(
        self, symbol: str, interval: str, start: int | None, end: int, limit: int
    ) -> Sequence[Candle]:  # fmt: skip
        """Return what was known of the candles of a stream at the time of the replay."""
        return await self._stream(StreamKey(symbol, interval)).known_at(self._clock.now(), start, end, limit)

    def _stream(self, key: StreamKey) -> PlayedStream:
        try:
            return self._streams[key]
        except KeyError:
            raise UnknownSymbol(f"{key} is not recorded") from None

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Yield what happens in all streams, in the order of its moments. Time begins with the first feed."""
        clock = self._clock
        clock.begin()
        players = Players(self._streams, watchlist)
        try:
            while True:
                version = watchlist.version
                if players.are_outdated:
                    # Nothing happens unseen while the streams that are new look for their place.
                    since = clock.now()
                    clock.hold(watchlist, since, is_open=True)
                    await players.follow(since)
                event = players.next
                if event is None:
                    clock.release(watchlist)
                    await watchlist.changed(version)
                    continue
                clock.hold(watchlist, event.moment, is_open=event.is_open)
                if (wait_s := clock.wait_s(event.moment)) > 0:
                    await watchlist.changed(version, wait_s)
                    continue
                if not clock.is_first(watchlist):
                    await clock.moved()
                    continue
                clock.reach(event.moment)
                yield event.update
                await players.go_on()
        finally:
            clock.release(watchlist)
            await players.close()


def _unknown(symbol: str) -> Instrument:
    base, slash, quote = symbol.partition("/")
    return Instrument(symbol, ASSET_CLASS, base if slash else symbol, quote)


def _length(interval: str) -> int:
    return next_open(interval, 0)
