"""Times the steps of an update's way through the relay, one by one; run with `python -m tests.bench.micro`.

Prints a table for tests/bench/README.md: the median of the rounds and their spread. Needs no network.
"""

import argparse
import asyncio
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from random import Random

import orjson

from providers.binance.codec import BinanceCodec
from relay import Hosts
from relay.core.clock import Clock, ProviderClock
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from relay.protocol import frames
from relay.streams.hub import Hub
from relay.streams.outbox import Outbox
from relay.streams.series import Series
from relay.streams.subscriptions import Stream, Subscriber

KEY = StreamKey("BTCUSDT", "1m")


class Sink:
    """A transport that takes everything at once, so that only the relay's own work is timed."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class NoFeeder:
    """Feeds nothing: the benchmark publishes."""

    has_history = False

    close_grace_s = 5.0

    def __init__(self, clock: Clock) -> None:
        self.clock = ProviderClock(clock)

    def wanted(self, stream: Stream) -> None:
        """Take no notice."""

    def unwanted(self, stream: Stream) -> None:
        """Take no notice."""


def updates(count: int) -> list[PriceUpdate]:
    """Return open states of one candle, each a little different."""
    base = 1_764_000_000
    return [
        PriceUpdate(KEY, Candle(base, 100.0, 101.5, 99.5, 100.0 + n % 97 / 100, float(n)), False, base * 1000 + n)
        for n in range(count)
    ]


def kline(n: int) -> str:
    """Return one combined kline event of Binance."""
    k = {
        "t": 1764000000000, "T": 1764000059999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 100 + n, "o": "100.00000000",
        "c": "100.50000000", "h": "101.50000000", "l": "99.50000000", "v": f"{n}.00000000", "n": n, "x": False,
        "q": "2063.00000000", "V": "10.31910700", "Q": "1031.00000000", "B": "0",
    }  # fmt: skip
    event = {"e": "kline", "E": 1764000000000 + n, "s": "BTCUSDT", "k": k}
    return orjson.dumps({"stream": "btcusdt@kline_1m", "data": event}).decode()


def timed(work: Callable[[], int], rounds: int) -> list[float]:
    """Return microseconds for each unit of work, one figure a round; `work` returns how many units it did."""
    work()
    figures = []
    for _ in range(rounds):
        started = time.perf_counter()
        units = work()
        figures.append((time.perf_counter() - started) * 1e6 / units)
    return figures


def decode_step() -> Callable[[], int]:
    codec = BinanceCodec(Hosts(["ws://127.0.0.1"]))
    list(codec.subscribe([KEY]))
    events = [kline(n) for n in range(5000)]

    def work() -> int:
        for frame in events:
            for _ in codec.decode(frame):
                pass
        return len(events)

    return work


def series_step() -> Callable[[], int]:
    made = updates(20_000)

    def work() -> int:
        series = Series(KEY, None)
        for update in made:
            series.accept(update)
        return len(made)

    return work


def hours_step() -> Callable[[], int]:
    """Ask the hours of a stock when each candle is over, as the relay does for each stream once a second."""
    market = TradingHours(TradingCalendar("America/New_York", "0930-1600", holidays=["12-25"]).session_at)

    def work() -> int:
        for moment in range(1_764_000_000, 1_764_010_000):
            market.end_of("1m", moment)
        return 10_000

    return work


def calendar_step() -> Callable[[], int]:
    """Ask a calendar for sessions of weeks that it has not been asked for."""

    def work() -> int:
        calendar = TradingCalendar("America/New_York", "0930-1600", holidays=["12-25"])
        for week in range(200):
            calendar.session_at(week * 604_800)
        return 200

    return work


def encode_step() -> Callable[[], int]:
    made = updates(20_000)

    def work() -> int:
        for seq, update in enumerate(made):
            frames.price_update("BTCUSDT", "1m", update, seq)
        return len(made)

    return work


def deflate_step() -> Callable[[], int]:
    encoded = [frames.price_update("BTCUSDT", "1m", update, 1) for update in updates(5000)]

    def work() -> int:
        for frame in encoded:
            frames.deflate(frame)
        return len(encoded)

    return work


def publish_step(loop: asyncio.AbstractEventLoop, subscribers: int, streams: int, own_sets: bool) -> Callable[[], int]:
    """Publish one update of each stream and flush: units are delivered frames. Each subscriber has ten streams."""
    clock = Clock()
    hub = Hub(clock, flush_s=0)
    feeder = NoFeeder(clock)
    keys = [StreamKey(f"S{n}", "1m") for n in range(streams)]
    table = [hub.stream("bench", key, key.symbol, feeder) for key in keys]
    random = Random(streams)

    def slow(subscriber: Subscriber, reason: str) -> None:
        raise AssertionError(reason)

    async def come() -> None:
        for number in range(subscribers):
            subscriber = hub.join(Outbox(Sink()), slow)
            first = number * 7 % len(table)
            for stream in random.sample(table, 10) if own_sets else (table * 2)[first : first + 10]:
                hub.subscribe(subscriber, stream)
        # Those with the same streams find each other.
        await asyncio.sleep(1)

    loop.run_until_complete(come())
    turn = 0

    def work() -> int:
        nonlocal turn
        before = hub.fanout.frames_out

        async def burst() -> None:
            for stream in table:
                candle = Candle(1_764_000_000, 100.0, 101.5, 99.5, 100.5, float(turn))
                hub.publish(stream, PriceUpdate(stream.key, candle, False, turn))
            hub.fanout.flush()

        for _ in range(20):
            turn += 1
            loop.run_until_complete(burst())
        return hub.fanout.frames_out - before

    return work


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    try:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    steps = {
        "decode one Binance kline event": decode_step(),
        "series: accept one open update": series_step(),
        "hours: when a candle is over": hours_step(),
        "hours: a week of a calendar, the first time": calendar_step(),
        "encode one update as a frame": encode_step(),
        "deflate one frame": deflate_step(),
        "deliver one frame, 1,000 subscribers of the same 10 streams": publish_step(loop, 1000, 10, False),
        "deliver one frame, 1,000 subscribers in 50 groups with 10 of 50 streams": publish_step(loop, 1000, 50, False),
        "deliver one frame, 1,000 subscribers, each with 10 of 50 streams of its own": publish_step(
            loop, 1000, 50, True
        ),
    }
    versions = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "orjson", "uvloop"))
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}; medians of {rounds} rounds\n")
    print("| step | µs each, median | spread |\n| --- | ---: | ---: |")
    for name, work in steps.items():
        figures = timed(work, rounds)
        print(f"| {name} | {statistics.median(figures):.3f} | {min(figures):.3f} – {max(figures):.3f} |")
    loop.close()


if __name__ == "__main__":
    sys.exit(main())
