"""Relays that play recordings, as `relay serve --replay` puts them together."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from providers.replay import replayed
from relay.app import build_app
from relay.core.intervals import next_open
from relay.core.model import Instrument
from relay.storage.recorded_candles import take_in
from tests.support.recordings import Streams
from tests.support.running_relay import Running, config_of, run_app


@asynccontextmanager
async def replaying(
    recorded: Mapping[str, Streams],
    *,
    start: int | None = None,
    speed: float = 1.0,
    known: Mapping[str, Mapping[str, Instrument]] | None = None,
    **settings: object,
) -> AsyncIterator[Running]:
    """Serve recorded candles by the names of their providers, from a moment on (Unix seconds); by default the first."""
    rows = [(name, key, candle) for name, streams in recorded.items() for key in streams for candle in streams[key]]
    recording = take_in(rows, "a test")
    try:
        providers, now = replayed(
            recording=recording,
            instruments={name: (known or {}).get(name, {}) for name in recorded},
            start=min(candle.time for _, _, candle in rows) if start is None else start,
            end=max(next_open(key.interval, candle.time) for _, key, candle in rows),
            speed=speed,
        )
        app = build_app(config_of({}, **settings), providers, installed=False, server_time=now)
        running = await run_app(app)
        try:
            yield running
        finally:
            await running.close()
    finally:
        recording.close()
