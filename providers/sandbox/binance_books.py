"""The partial book depth streams of the simulated Binance: a few levels, some times a second."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

from providers.sandbox.binance_klines import parse_book

Book = dict[str, object]


class BookStream(NamedTuple):
    """One subscribed stream: whose book, how many levels, and the real seconds between two events."""

    symbol: str
    levels: int
    every_s: float
    connections: set[int]


class BookStreams:
    """Send the books of all subscribed streams; one task, `run`, does all of it.

    Each is sent when it is due, changed or not, with what REST gives at that moment. It says neither the symbol nor a
    time, and comes at the pace of the real clock, however fast the exchange's runs.
    """

    def __init__(self, book_of: Callable[[str, int], Book | None], send: Callable[[str, Book], None]) -> None:
        self._book_of = book_of
        self._send = send
        self._streams: dict[str, BookStream] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = asyncio.Event()

    def join(self, name: str, connection: int) -> None:
        """Send a stream's events from now on, for a connection by its number; does nothing if it is no book."""
        parsed = parse_book(name)
        if parsed is None:
            return
        if name not in self._streams:
            self._streams[name] = BookStream(parsed[0], parsed[1], parsed[2] / 1000, set())
            heappush(self._heap, (asyncio.get_running_loop().time() + parsed[2] / 1000, name))
            self._changed.set()
        self._streams[name].connections.add(connection)

    def leave(self, name: str, connection: int) -> None:
        """Note that a connection has left a stream; the last one ends it."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.connections.discard(connection)
            if not stream.connections:
                del self._streams[name]
                self._heap = sorted(due for due in self._heap if due[1] != name)

    async def run(self) -> None:
        """Send what is due, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            while self._heap and self._heap[0][0] <= loop.time():
                due, name = heappop(self._heap)
                stream = self._streams[name]
                book = self._book_of(stream.symbol, stream.levels)
                if book is not None:
                    self._send(name, book)
                heappush(self._heap, (max(due, loop.time() - stream.every_s) + stream.every_s, name))
            self._changed.clear()
            wait = max(0.0005, self._heap[0][0] - loop.time()) if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
