"""Rows of a grid that go on live: a client names symbols, and is sent a row for each change of their prices.

https://docs.openbb.co/workspace/developers/widget-types/live-grid has the messages.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import orjson
from aiohttp import web

from relay.core.errors import CloseCode, Code, RequestError
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.protocol import client_requests, frames
from relay.protocol.client_requests import SubscribeOptions, UpdateForm
from relay.streams.subscriptions import Stream
from relay.web.facades.udf.day_quotes import MOST_SYMBOLS, DayQuote, DayQuotes, empty_row, grid_row, names_in
from relay.web.facades.udf.refusals import reason_of
from relay.web.ws.aiohttp_connection import AiohttpConnection
from relay.web.ws.connection import STREAMS_PER_REQUEST, Connection, Rest
from relay.web.ws.direct_connection import DirectConnection

THROTTLE_MS = 250
"""Nobody reads a cell that changes more often."""
EXAMPLE = {"params": {"symbol": ["BTCUSDT", "EUR/USD"]}}
EXAMPLE_TEXT = orjson.dumps(EXAMPLE).decode()


class RowForm(UpdateForm):
    """The rows of one stream of days. It knows the close of the day before, and sees each day begin."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._time = -1
        self._last: float | None = None
        self._previous: float | None = None

    def begin(self, day: Candle, previous: float | None) -> None:
        """Note what history has; what the stream told since is newer."""
        if day.time >= self._time:
            self._time, self._last, self._previous = day.time, day.close, previous

    def frame(self, update: PriceUpdate, now_ms: int) -> bytes | None:
        """Return the row after an update; None for one of an earlier day."""
        day = update.candle
        if day.time < self._time:
            return None
        if day.time > self._time:
            self._time, self._previous = day.time, self._last
        self._last = day.close
        return row_frame(grid_row(self._name, day, self._previous))


class LiveRows(NamedTuple):
    """What connections are served from: quotes to begin with, and the form of each stream that somebody follows."""

    quotes: DayQuotes
    forms: WeakValueDictionary[tuple[str, StreamKey], RowForm]

    def form_of(self, quote: DayQuote) -> RowForm:
        """Return the form of a stream's rows, which all who follow it share."""
        identity = (quote.target.provider.name, quote.target.key)
        form = self.forms.get(identity)
        if form is None:
            form = self.forms[identity] = RowForm(quote.target.name)
        form.begin(quote.day, quote.previous)
        return form


LIVE_ROWS = web.RequestKey("live_rows", LiveRows)


class RowConnection(Connection):
    """One client, whatever reads its frames. `_followed` has its streams by the names that it asked for.

    `_coming` has the names whose first row is still made: none waits for another.
    """

    _rows: LiveRows
    _followed: dict[str, Stream]
    _coming: dict[str, asyncio.Task[None]]

    def begin(self, request: web.Request) -> Rest | None:
        """Wait for the first message."""
        self._rows, self._followed, self._coming = request[LIVE_ROWS], {}, {}
        return None

    def _on_text(self, text: str) -> Rest | None:
        if self._is_too_big(text):
            self.end(CloseCode.TOO_BIG, "message too big")
            return None
        try:
            names = _names_wanted(client_requests.parse_object(text, EXAMPLE_TEXT))
        except RequestError as error:
            self._on_invalid(error, None)
            return None
        self._all_of_them.requests["subscribe"] += 1
        self._requests.spend(len(names) // STREAMS_PER_REQUEST)
        self._follow(names)
        return None

    def _follow(self, names: list[str]) -> None:
        """Follow these symbols and no others."""
        for name in {*self._coming}.difference(names):
            self._coming.pop(name).cancel()
        self._leave([self._followed.pop(name) for name in {*self._followed}.difference(names)])
        for name in names:
            if name not in self._followed and name not in self._coming:
                self._coming[name] = self.spawn(self._follow_one(name))

    async def _follow_one(self, name: str) -> None:
        """Follow a symbol and send its first row; one that cannot be followed harms no other."""
        try:
            await self._context.work_budget.acquire()
            quote = await self._rows.quotes.of(name, self.caller, is_polled=False)
            if self._is_ended:
                return
            options = SubscribeOptions(throttle_ms=THROTTLE_MS, form=self._rows.form_of(quote))
            self._followed[name] = self._subscribing.follow(quote.target, options)
            row = grid_row(quote.target.name, quote.day, quote.previous)
        except Exception as error:  # noqa: BLE001  a fault ends one row, never the connection
            row = empty_row(name, reason_of(error))
        del self._coming[name]
        self._send(row_frame(row))

    def _leave(self, streams: Iterable[Stream]) -> None:
        for stream in {*streams}.difference(self._followed.values()):
            self._subscribing.leave(stream)


class DirectRowConnection(RowConnection, DirectConnection):
    """One whose frames the relay reads itself."""


class AiohttpRowConnection(RowConnection, AiohttpConnection):
    """One whose frames aiohttp reads."""


def row_frame(row: dict[str, Any]) -> bytes:
    """Return the frame of a row."""
    return frames.frame(orjson.dumps(row))


def _names_wanted(message: dict[str, Any]) -> list[str]:
    """Return the symbols that a message names, each once. Raises `RequestError`."""
    params = message.get("params")
    given = params.get("symbol") if isinstance(params, dict) else None
    if isinstance(given, str):
        # Before a symbol is chosen there is none.
        return names_in(given, "params.symbol") if given.strip(" ,") else []
    if isinstance(given, list) and len(given) <= MOST_SYMBOLS and all(isinstance(name, str) for name in given):
        return [*dict.fromkeys(name.strip() for name in given if name.strip())]
    raise RequestError(
        Code.INVALID_REQUEST,
        f"a message names up to {MOST_SYMBOLS} symbols, for example {EXAMPLE_TEXT}",
    )
