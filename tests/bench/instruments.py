"""Times what a list of 100,000 instruments costs: to take, store, read, show and search it.

`python -m tests.bench.instruments` prints two tables. `--instruments N` takes fewer, `--rounds N` more rounds. CPU is
that of the thread that does the work; memory what Python allocated for it.
"""

import argparse
import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp

from relay import API_VERSION, Instrument, ProviderInfo, hookimpl
from relay.core.clock import Clock, ProviderClock
from relay.core.compact_instruments import compact
from relay.instruments.directory import Directory
from relay.instruments.listing import Listing
from relay.instruments.saved_list import read_rows, rows_of
from relay.plugins.loader import PluginHost
from relay.plugins.validation import fault_of_instrument
from relay.storage.store import Store
from relay.web.http.instrument_lists import InstrumentLists, Selection
from relay.web.http.instrument_rows import InstrumentRows
from tests.support.conditions import eventually

QUERIES = ("aapl", "a", "usd", "alpha", "alpha beta gamma", "btc usdt", "zzzzzz")
_WORDS = (
    "Alpha", "Beta", "Gamma", "Delta", "Holdings", "Group", "Energy", "Bank", "Systems", "Pharma", "Foods", "Metals",
    "Software", "Steel", "Water", "Media",
)  # fmt: skip
_QUOTES = ("USD", "EUR", "GBP", "JPY", "USDT", "BTC", "INR", "CHF")
_ENDS = ("", ".L", ".NS", "=F", "/USD", "-PERP")


def made_up(count: int) -> list[Instrument]:
    """Return instruments with symbols and names as stocks have them."""
    dice = random.Random(1)
    symbols = dict.fromkeys(
        "".join(dice.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=dice.randint(3, 6))) + dice.choice(_ENDS)
        for _ in range(2 * count)
    )
    return [
        Instrument(
            symbol, "stocks", symbol[:4], dice.choice(_QUOTES), name=" ".join(dice.choices(_WORDS, k=3)) + " Inc.",
            price_step="0.01", volume_step="1", session="0930-1600 America/New_York",
        )
        for symbol in [*symbols][:count]
    ]  # fmt: skip


class Stocks:
    """A provider with that list."""

    def __init__(self, listed: Sequence[Instrument]) -> None:
        self._listed = listed

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="stocks", api=API_VERSION, title="Stocks", asset_classes=("stocks",),
            intervals=("1m", "5m", "15m", "1h", "4h", "1d", "1w", "1M"), attribution="Market data by Stocks",
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self) -> Any:
        await asyncio.Event().wait()
        yield

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        return self._listed


def timed(name: str, work: Callable[[], object], rounds: int) -> None:
    """Print the median CPU of some rounds."""
    spent = []
    for _ in range(rounds):
        gc.collect()
        begun = time.thread_time()
        work()
        spent.append(1000 * (time.thread_time() - begun))
    print(f"| {name} | {statistics.median(spent):.1f} | {min(spent):.1f} – {max(spent):.1f} |")


async def timed_on_loop(name: str, work: Callable[[], Awaitable[object]], rounds: int) -> None:
    """Print the median CPU of the event loop's thread in some rounds."""
    spent = []
    for _ in range(rounds):
        begun = time.thread_time()
        await work()
        spent.append(1000 * (time.thread_time() - begun))
    print(f"| {name} | {statistics.median(spent):.2f} | {min(spent):.2f} – {max(spent):.2f} |")


def allocated(work: Callable[[], object]) -> tuple[object, float]:
    """Return what work made, and how many MB Python allocated for what is left of it."""
    gc.collect()
    tracemalloc.start()
    made = work()
    gc.collect()
    mb = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return made, mb


async def measure(count: int, rounds: int) -> None:
    """Print both tables."""
    listed = made_up(count)
    provider = Stocks(listed)
    info = provider.relay_provider()
    kept = compact(listed)
    body = rows_of(kept)
    print("| in a thread, or in slices | CPU ms, median | spread |\n| --- | ---: | ---: |")
    timed("judge all", lambda: [fault_of_instrument(one, info) for one in listed], rounds)
    timed("make all small", lambda: compact(listed), rounds)
    listing = Listing(1)
    timed("take the list", lambda: listing.take(kept, 0.0), rounds)
    timed("encode it for the store", lambda: rows_of(kept), rounds)
    timed("read it from the store", lambda: read_rows(body, info), rounds)

    store = await Store.open(":memory:", Clock())
    host = PluginHost()
    host.load([provider])
    async with aiohttp.ClientSession() as session:
        bound = [host.bind(host.loaded[name], {}, ProviderClock(Clock())) for name in host.loaded]
        bound[0].open(session)
        directory = Directory(bound, store.documents)
        await directory.start()
        await eventually(lambda: directory.standing("stocks", listed[0].symbol) == "trading", 60.0)
        rows = InstrumentRows(directory)
        timed("make the rows", lambda: InstrumentRows(directory), rounds)
        timed("make the symbols", lambda: rows.symbols(range(len(rows))), rounds)
        timed("make the search index", lambda: InstrumentRows.index(_fresh(rows)), rounds)
        _, list_mb = allocated(lambda: read_rows(body, info))
        made, rows_mb = allocated(lambda: InstrumentRows(directory))
        _, index_mb = allocated(lambda: InstrumentRows.index(_fresh(rows)))
        del made

        print("\n| on the event loop | CPU ms, median | spread |\n| --- | ---: | ---: |")
        lists = InstrumentLists(directory)
        for kind in ("symbols", "instruments"):
            await lists.body(kind, Selection())  # type: ignore[arg-type]  # they are kinds
        await timed_on_loop("symbols again", lambda: lists.body("symbols", Selection()), rounds)
        await timed_on_loop("instruments again", lambda: lists.body("instruments", Selection()), rounds)
        for query in QUERIES:
            wanted = Selection(query=query, limit=100)
            await lists.body("instruments", wanted)
            await timed_on_loop(f"q={query}", lambda wanted=wanted: lists.body("instruments", wanted), rounds)  # type: ignore[misc]
        size = sum(map(len, rows.instruments(range(len(rows)))))
        print(
            f"\n{count:,} instruments: {list_mb:.0f} MB for the list, {rows_mb:.0f} for the rows, "
            f"{index_mb:.0f} for the index; {size / 1e6:.1f} MB as JSON, {len(body) / 1e6:.1f} MB stored"
        )
        await lists.close()
        await directory.close()
    await store.close()


def _fresh(rows: InstrumentRows) -> InstrumentRows:
    """Return rows that have no index yet."""
    rows._index = None
    return rows


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instruments", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    # As a relay sets it, see relay/server/run.py.
    gc.set_threshold(10_000, 20, 50)
    asyncio.run(measure(asked.instruments, asked.rounds))


if __name__ == "__main__":
    main()
