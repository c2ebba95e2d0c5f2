"""The instruments of one state of the directory as the JSON that is sent; made in a thread that gives way."""

import heapq
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import orjson

from relay.core.model import Instrument
from relay.core.session_text import ALWAYS
from relay.instruments.directory import Directory, Listed
from relay.instruments.search_index import SearchIndex
from relay.plugins.provider import Provider

AT_A_TIME = 200
"""So many rows take a millisecond; then others run."""
MANY = 2000
"""So many are sorted or joined at once."""

T = TypeVar("T")


def give_way() -> None:
    """Let the other threads run, above all the event loop's."""
    time.sleep(0)


class InstrumentRows:
    """All instruments, sorted by symbol; the JSON of a row exists once, in chunks that answers share.

    Reads the directory, so it is made anew when that has another state. 100,000 instruments take some 50 MB.
    """

    def __init__(self, directory: Directory, give_way: Callable[[], None] = give_way) -> None:
        self._give_way = give_way
        self._instruments: list[Instrument] = []
        self._names: list[str] = []
        self._providers: list[Provider] = []
        self._owner = array("H")
        self._chunks: list[bytes] = []
        self._ends: list[array[int]] = []
        self._index: SearchIndex | None = None
        # Texts alone are sorted: hundreds of thousands of other objects keep the garbage collector busy.
        lists: dict[str, dict[str, Instrument]] = {}
        for one in self._in_turns(directory.everything()):
            if one.provider.name not in lists:
                lists[one.provider.name] = {}
                self._providers.append(one.provider)
            symbol = one.instrument.symbol
            # Nearly all are in upper case, and the text of those is not needed twice.
            lists[one.provider.name][symbol if symbol.isupper() else symbol.upper()] = one.instrument
        in_order = heapq.merge(*(_marked(self._sorted(lists[one.name]), one.name) for one in self._providers))
        places = {one.name: (place, one) for place, one in enumerate(self._providers)}
        parts: list[bytes] = []
        for symbol, owner in self._in_turns(in_order):
            place, provider = places[owner]
            instrument = lists[owner][symbol]
            name = directory.name_of(provider, symbol)
            self._instruments.append(instrument)
            self._names.append(name)
            self._owner.append(place)
            parts.append(_row(name, symbol, Listed(provider, instrument)))
            if len(parts) == MANY:
                self._close_chunk(parts)
                parts = []
        if parts:
            self._close_chunk(parts)

    def _close_chunk(self, parts: list[bytes]) -> None:
        ends, at = array("I"), -1
        for part in parts:
            at += len(part) + 1
            ends.append(at)
        self._chunks.append(b",".join(parts))
        self._ends.append(ends)

    def __len__(self) -> int:
        return len(self._names)

    def chosen(self, asset_class: str | None, provider: str | None) -> Callable[[int], bool]:
        """Return what says of a row whether it is of a class and a provider; None is any."""
        owners = {place for place, one in enumerate(self._providers) if provider in (None, one.name)}
        owner, instruments = self._owner, self._instruments

        def is_chosen(number: int) -> bool:
            return owner[number] in owners and asset_class in (None, instruments[number].asset_class)

        return is_chosen

    def numbers(self, asset_class: str | None, provider: str | None, limit: int | None = None) -> Sequence[int]:
        """Return the rows of a class and a provider, in order, at most so many."""
        everything = range(len(self))
        if asset_class is None and provider is None:
            return everything[:limit]
        is_chosen, found = self.chosen(asset_class, provider), []
        for number in self._in_turns(everything):
            if is_chosen(number):
                found.append(number)
                if len(found) == limit:
                    break
        return everything if len(found) == len(everything) else found

    def listed(self, number: int) -> Listed:
        """Return the instrument of a row."""
        return Listed(self._providers[self._owner[number]], self._instruments[number])

    def instruments(self, numbers: Sequence[int]) -> list[bytes]:
        """Return a JSON array of some rows, in parts."""
        if numbers == range(len(self)):
            found = [part for chunk in self._chunks for part in (b",", chunk)]
            return [b"[", *found[1:], b"]"]
        return self._array(map(self._json, numbers))

    def symbols(self, numbers: Sequence[int]) -> list[bytes]:
        """Return a JSON array of the names of some rows, sorted, each once, in parts."""
        names = [self._names[number] for number in numbers]
        # Rows are sorted by symbol: only pinned names are at another place.
        bare = [name for name in self._in_turns(names) if ":" not in name]
        others = [name for name in self._in_turns(names) if ":" in name]
        merged = heapq.merge(self._sorted(bare), self._sorted(others))
        each = (name for name, more in pairwise((*self._in_turns(merged), None)) if name != more)
        return self._array(orjson.dumps(name) for name in each)

    def index(self) -> SearchIndex:
        """Return what finds rows by words; made when it is asked for first."""
        if self._index is None:
            self._index = SearchIndex(self._instruments, self._give_way, self._names)
        return self._index

    def _json(self, number: int) -> bytes:
        place, row = divmod(number, MANY)
        start = self._ends[place][row - 1] + 1 if row else 0
        return self._chunks[place][start : self._ends[place][row]]

    def _array(self, values: Iterable[bytes]) -> list[bytes]:
        parts, some = [b"["], list[bytes]()
        for value in self._in_turns(values):
            some.append(value)
            if len(some) == MANY:
                parts += [b",".join(some), b","]
                some = []
        if some:
            parts.append(b",".join(some))
        elif len(parts) > 1:
            parts.pop()
        return [*parts, b"]"]

    def _in_turns(self, values: Iterable[T]) -> Iterator[T]:
        """Yield values, and let others have their turn after some of them."""
        for place, value in enumerate(values, 1):
            yield value
            if place % AT_A_TIME == 0:
                self._give_way()

    def _sorted(self, values: Iterable[Any]) -> Iterator[Any]:
        """Sort; all at once that would keep other threads waiting for a tenth of a second with 100,000 values."""
        runs, run = [], []
        for value in values:
            run.append(value)
            if len(run) == MANY:
                runs.append(sorted(run))
                run = []
                self._give_way()
        return heapq.merge(*runs, sorted(run))


def _marked(symbols: Iterable[str], provider: str) -> Iterator[tuple[str, str]]:
    for symbol in symbols:
        yield symbol, provider


def session_of(provider: Provider, symbol: str, instrument: Instrument | None) -> str | None:
    """Return when an instrument is traded, as text; None where its provider knows it, and has no text for it."""
    if instrument is not None and instrument.session:
        return instrument.session
    return provider.hours.session_text(symbol) if provider.hours.is_stated else ALWAYS


def _row(name: str, symbol: str, one: Listed) -> bytes:
    provider, instrument = one
    row = {
        "symbol": name,
        "id": f"{provider.name}:{symbol}",
        "provider": provider.name,
        "name": instrument.name,
        "asset_class": instrument.asset_class,
        "base": instrument.base,
        "quote": instrument.quote,
        "intervals": one.intervals,
        "derived_intervals": one.derived_intervals,
        "price_step": instrument.price_step,
        "volume_step": instrument.volume_step,
        # What a provider says nothing of is always open for the relay.
        "session": session_of(provider, symbol, instrument),
        "status": instrument.status,
        "attribution": provider.info.attribution,
    }
    for field in ("volume_unit", "listed_at", "expires_at"):
        if (value := getattr(instrument, field)) is not None:
            row[field] = value
    return orjson.dumps(row)
