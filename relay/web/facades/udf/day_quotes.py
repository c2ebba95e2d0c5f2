"""What an instrument costs now, and what changed since the day before: from the candles of its days."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

from relay.core.errors import Code, ProviderTimeout, ProviderUnavailable, RequestError
from relay.core.model import Candle
from relay.history.live_edge import LiveEdge, live_of
from relay.history.requests import HistoryRequest
from relay.instruments.directory import Meant, Target
from relay.protocol.fields import shown
from relay.protocol.symbol_names import parse_symbol
from relay.storage.chunks import decode
from relay.web.access.access import Caller
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FacadeParts
from relay.web.facades.polled_series import PolledSeries
from relay.web.facades.udf.symbol_info import description_of, exchange_of

DAY = "1d"
MOST_SYMBOLS = 100
"""So many symbols may one request name."""
PATIENCE_S = 2.0
"""So long an answer that has some quotes waits for the next one."""
MOST_LATE = 1_000
"""So many quotes may be on their way when an answer without them has left."""
_AT_ONCE = 8


class DayQuote(NamedTuple):
    """The newest candle of an instrument's days, and the close of the one before it; None if there is none."""

    meant: Meant
    target: Target
    day: Candle
    previous: float | None


class DayQuotes:
    """Finds quotes, and has what is polled followed live."""

    def __init__(self, parts: FacadeParts, polled: PolledSeries, counts: FacadeCounts) -> None:
        self._parts = parts
        self._polled = polled
        self._counts = counts
        self._late: dict[tuple[str, str], asyncio.Task[DayQuote | Exception]] = {}

    async def of(
        self, name: str, caller: Caller, *, is_polled: bool, gates: Mapping[str, asyncio.Semaphore] | None = None
    ) -> DayQuote:
        """Return the quote of a symbol, for who polls it or follows it anyway; `gates` are to be passed by provider.

        Raises `RequestError`, `ProviderError`, `StoreError`.
        """
        parts = self._parts
        parts.access.check_rows(caller)
        pin, symbol = parse_symbol(name)
        await parts.directory.settled(pin, symbol, [caller.client])
        target = parts.directory.resolve(pin, symbol, DAY)
        if is_polled:
            self._polled.note(target, caller)
        provider, key, _ = target

        def live() -> LiveEdge | None:
            return live_of(parts.hub.streams.get((provider.name, key)))

        request = HistoryRequest(provider, key, None, None, 2, live, client=caller.client, on_call=self._count_call)
        async with nullcontext() if gates is None else gates[provider.name]:
            candles = decode((await parts.history.text(request)).chunk)
        parts.access.spend_rows(caller, len(candles))
        if not candles:
            raise ProviderUnavailable(f"{provider.info.title} has no candles of {target.name} yet")
        previous = candles[-2].close if len(candles) > 1 else None
        return DayQuote(parts.directory.meant(pin, symbol), target, candles[-1], previous)

    async def of_all(self, names: list[str], caller: Caller) -> list[DayQuote | Exception]:
        """Return the quotes of several symbols, or why there are none; of each provider some at once.

        What is late, while others are there, is an error now, and goes on for who asks again.
        """
        gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))

        async def one(name: str) -> DayQuote | Exception:
            try:
                return await self.of(name, caller, is_polled=True, gates=gates)
            except Exception as error:  # noqa: BLE001  a fault of one symbol harms no other
                return error

        tasks = {name: self._late.get((caller.client, name)) or asyncio.create_task(one(name)) for name in names}
        pending = set(tasks.values())
        while pending:
            timeout_s = PATIENCE_S if len(pending) < len(names) else None
            done, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
        for name, task in tasks.items():
            if not task.done():
                self._keep((caller.client, name), task)
        return [task.result() if task.done() else _not_yet(name) for name, task in tasks.items()]

    def _keep(self, asked: tuple[str, str], task: asyncio.Task[DayQuote | Exception]) -> None:
        if asked in self._late:
            return
        if len(self._late) >= MOST_LATE:
            task.cancel()
            return
        self._late[asked] = task
        task.add_done_callback(lambda _: self._late.pop(asked, None))

    async def close(self) -> None:
        """Leave off what is late."""
        late = [*self._late.values()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _count_call(self) -> None:
        self._counts.calls += 1


def _not_yet(name: str) -> Exception:
    return ProviderTimeout(f"the provider of {shown(name)} has not answered yet; ask again")


def names_in(text: str, parameter: str) -> list[str]:
    """Return the symbols of a list with commas, each once. Raises `RequestError`."""
    names = [*dict.fromkeys(name.strip() for name in text.split(",") if name.strip())]
    if not names:
        raise RequestError(Code.INVALID_REQUEST, f"{parameter} is missing")
    if len(names) > MOST_SYMBOLS:
        said = f"{parameter} has {len(names)} symbols; give 1 to {MOST_SYMBOLS}, with commas between them"
        raise RequestError(Code.INVALID_REQUEST, said)
    return names


def udf_quote(name: str, quote: DayQuote) -> dict[str, Any]:
    """Return a quote as the UDF protocol has it, under the name that it was asked for by; `chp` is in percent."""
    meant, _, day, previous = quote
    values: dict[str, Any] = {
        "lp": day.close,
        "open_price": day.open,
        "high_price": day.high,
        "low_price": day.low,
        "volume": day.volume,
        "short_name": meant.symbol.upper(),
        "exchange": exchange_of(meant.provider.name),
        "description": description_of(meant.instrument, meant.symbol.upper()),
    }
    if previous is not None:
        values |= {"prev_close_price": previous, "ch": _rounded(day.close - previous)}
        if previous:
            values["chp"] = _rounded((day.close - previous) / previous * 100)
    return {"s": "ok", "n": name, "v": values}


def grid_row(name: str, day: Candle, previous: float | None) -> dict[str, Any]:
    """Return a row of a grid; `change_percent` is a part of the price: 0.01 is one percent."""
    change = None if previous is None else _rounded(day.close - previous)
    part = None if change is None or not previous else _rounded(change / previous)
    return {"symbol": name, "price": day.close, "change": change, "change_percent": part, "volume": day.volume}


def empty_row(name: str, why: str) -> dict[str, Any]:
    """Return the row of a symbol that there is no price of, with the reason."""
    return dict.fromkeys(("price", "change", "change_percent", "volume")) | {"symbol": name, "error": why}


def _rounded(value: float) -> float:
    # What is behind these digits comes of the subtraction.
    return float(f"{value:.10g}")
