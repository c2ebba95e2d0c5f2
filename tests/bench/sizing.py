"""Measures the room on the disk that candles take, and prints what a stream needs in a day and a year.

`python -m tests.bench.sizing` prints a table for relay/packaging/README.md in some seconds. What clients cost measures
`tests.bench.everyday`.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from relay.core.clock import Clock
from relay.core.intervals import length_s
from relay.core.model import Candle, ExtendedCandle, StreamKey
from relay.core.spans import Span
from relay.storage.chunks import window_s
from relay.storage.inspect import file_bytes, reading
from relay.storage.store import Store
from tests.bench.store import PAGE, made_up

KEY = StreamKey("BTCUSDT", "1m")
INTERVALS = ("1s", "1m", "5m", "1h", "1d")
DAY_S = 86_400


def extended(candle: Candle) -> ExtendedCandle:
    """Return a candle with what Binance gives beside prices and volume."""
    worth, trades = round(candle.volume * candle.close, 7), int(candle.volume * 31)
    taken = round(candle.volume / 2, 5)
    return ExtendedCandle(
        *candle,
        quote_volume=worth,
        trades=trades,
        taker_volume=taken,
        taker_quote_volume=round(taken * candle.close, 7),
    )


async def bytes_of_one(path: Path, candles: list[Candle]) -> float:
    """Return the bytes that one candle takes on the disk, with its encoded form, which is made when it is asked for."""
    store = await Store.open(path, Clock())
    for at in range(0, len(candles), PAGE):
        rows = candles[at : at + PAGE]
        await store.add("binance", KEY, rows, Span(rows[0].time, rows[-1].time + 60))
    windows = len({candle.time // window_s("1m") for candle in candles})
    with reading(str(path)) as connection:
        # They are encoded after they were asked for, a few at a time; the last window is not full.
        while connection.execute("SELECT count(*) FROM chunks").fetchone()[0] < windows - 2:
            connection.execute("COMMIT")
            for at in range(candles[0].time, candles[-1].time, 60 * PAGE):
                await store.chunks("binance", KEY, at, at + 60 * PAGE, PAGE, True)
            await asyncio.sleep(0.5)
            connection.execute("BEGIN")
    await store.close()
    return file_bytes(str(path)) / len(candles)


async def measure(count: int) -> None:
    """Print the tables."""
    plain = made_up(count)
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, candles in (("plain", plain), ("with extras", [extended(candle) for candle in plain])):
            sizes[name] = await bytes_of_one(Path(folder, f"{name}.db"), list(candles))
    for name, size in sizes.items():
        print(f"one candle, {name}: {size:.0f} bytes")
    print("\n| interval | candles a day | a stream a day | a stream a year | 100 streams a year |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for interval in INTERVALS:
        a_day = DAY_S // length_s(interval)
        size = sizes["with extras"] * a_day
        cells = (f"`{interval}`", f"{a_day:,}", _mb(size), _mb(size * 365), _mb(size * 36_500))
        print(f"| {' | '.join(cells)} |")


def _mb(size: float) -> str:
    return (
        f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} KB"
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candles", type=int, default=50_000, help="how many are stored  [default: %(default)s]")
    asyncio.run(measure(parser.parse_args().candles))


if __name__ == "__main__":
    main()
