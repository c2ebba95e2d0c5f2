"""Recorded candles for replays: made up by a walk, in memory or as files of `relay history`."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from relay.core.intervals import length_s
from relay.core.model import EXTRA_FIELDS, Candle, ExtendedCandle, StreamKey

START = 1_732_406_400
"""2024-11-24T00:00:00Z, a Sunday."""
Streams = Mapping[StreamKey, Sequence[Candle]]


class KnownBounds(NamedTuple):
    """Of one stream, in open times."""

    first: int
    last: int


class MemoryRecording:
    """A recording that is a dictionary, of one provider or more; `asked` are the streams that were read, in turn.

    Reading takes `takes_s`, so much more or less each time.
    """

    def __init__(self, *recorded: Streams, names: Sequence[str] = ("binance", "other"), takes_s: float = 0.0) -> None:
        self._candles = dict(zip(names, recorded, strict=False))
        self._takes_s = takes_s
        self.asked: list[StreamKey] = []
        self.streams = {
            name: {key: KnownBounds(rows[0].time, rows[-1].time) for key, rows in streams.items()}
            for name, streams in self._candles.items()
        }

    async def read(
        self, provider: str, key: StreamKey, start: int | None, end: int, limit: int
    ) -> Sequence[Candle]:  # fmt: skip
        """Return candles as a recording does."""
        self.asked.append(key)
        if self._takes_s:
            await asyncio.sleep(self._takes_s * (len(self.asked) % 5))
        rows = [candle for candle in self._candles[provider][key] if (start or 0) <= candle.time < end]
        return rows[-limit:] if start is None else rows[:limit]


def walk(
    count: int, interval: str = "1m", *, seed: int = 1, start: int = START, extended: bool = False
) -> list[Candle]:
    """Return candles one after the other, whose prices have two decimals."""
    rng, price, length = random.Random(seed), 100.0, length_s(interval)
    candles: list[Candle] = []
    for number in range(count):
        opened, price = price, round(max(1.0, price + rng.uniform(-0.5, 0.5)), 2)
        high, low = round(max(opened, price) + rng.random(), 2), round(min(opened, price) * (1 - rng.random() / 99), 2)
        values = (start + number * length, opened, high, low, price, round(rng.random() * 9, 3))
        if extended:
            volume = values[-1]
            candles.append(
                ExtendedCandle(
                    *values,
                    quote_volume=round(volume * price, 4),
                    trades=rng.randrange(99),
                    taker_volume=round(volume / 2, 4),
                    taker_quote_volume=round(volume * price / 2, 4),
                )
            )
        else:
            candles.append(Candle(*values))
    return candles


def longer(candles: Iterable[Candle], interval: str) -> list[Candle]:
    """Return the candles of a longer interval that shorter ones make."""
    length, made = length_s(interval), dict[int, Candle]()
    for time, opened, high, low, close, volume in candles:
        at = time - time % length
        known = made.get(at, Candle(at, opened, high, low, close, 0.0))
        made[at] = Candle(
            at, known.open, max(known.high, high), min(known.low, low), close, round(known.volume + volume, 3)
        )
    return [*made.values()]


def write_csv(path: Path, candles: Iterable[Candle], *, extended: bool = False) -> Path:
    """Write candles as `relay history --csv` does."""
    names = [*Candle._fields, *(EXTRA_FIELDS if extended else ())]
    lines = [",".join(names), *(",".join(str(getattr(candle, name)) for name in names) for candle in candles)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
