"""A chart's data feed: it asks what TradingView's reference client asks, and reads the answers as that does.

It looks at no status, takes an object with `s` for an error where an array or a symbol is due, and asks by `ticker`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from tests.support.running_relay import Running

UNESCAPED = "-_.!~*'()"
"""What `encodeURIComponent` leaves as it is."""
_DAYS = {"D": 1, "W": 7, "M": 31}


class UnresolvedSymbol(Exception):
    """The server does not know a symbol."""


class ServerRefusal(Exception):
    """The server answered a request for bars with an error."""


class ChartBar(NamedTuple):
    """A bar; `time` is in Unix seconds, as the relay's candles have it."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class BarsAnswer(NamedTuple):
    bars: list[ChartBar]
    no_data: bool = False
    next_time_ms: int | None = None


class UdfClient:
    """The data feed of one page. `asked` has the addresses, in order."""

    def __init__(self, relay: Running, base: str = "/udf") -> None:
        self._relay = relay
        self._base = base
        self.asked: list[str] = []

    async def send(self, route: str, **query: Any) -> Any:
        """Ask a route; return what `JSON.parse` makes of the body."""
        query_text = "&".join(f"{name}={quote(str(value), safe=UNESCAPED)}" for name, value in query.items())
        self.asked.append(f"{route}?{query_text}" if query_text else route)
        return orjson.loads((await self._relay.get(f"{self._base}/{self.asked[-1]}")).text)

    async def ready(self) -> Any:
        """Load the configuration, which is the first thing that is done."""
        found = await self.send("config")
        assert (found["supports_search"], found["supports_group_request"]) == (True, False)
        return found

    async def search(self, typed: str, kind: str = "", exchange: str = "") -> list[Any]:
        """Return what the symbol search shows."""
        found = await self.send("search", limit=30, query=typed.upper(), type=kind, exchange=exchange)
        return [] if isinstance(found, dict) else list(found)

    async def resolve(self, name: str) -> Any:
        """Return what is known of a symbol. Raises `UnresolvedSymbol`."""
        found = await self.send("symbols", symbol=name)
        if "s" in found:
            raise UnresolvedSymbol(found["errmsg"])
        return found

    async def bars(self, info: Any, resolution: str, start: float, end: float, most: int | None) -> BarsAnswer:
        """Ask for the last `most` bars before `end`, or for those from `start`. Raises `ServerRefusal`."""
        query: dict[str, Any] = {"symbol": info["ticker"], "resolution": resolution, "from": start, "to": end}
        if most is not None:
            query["countback"] = most
        if "currency_code" in info:
            query["currencyCode"] = info["currency_code"]
        found = await self.send("history", **query)
        if found["s"] == "no_data":
            return BarsAnswer([], no_data=True, next_time_ms=found.get("nextTime"))
        if found["s"] != "ok":
            raise ServerRefusal(found["errmsg"])
        columns = [found[name] for name in "tohlcv"]
        return BarsAnswer([ChartBar(*values) for values in zip(*columns, strict=True)])


class Chart:
    """A chart of one symbol: it loads, is scrolled back to the beginning, and has its newest bars renewed.

    Without `counts_back` it asks for spans of time, as older clients do.
    """

    def __init__(
        self, client: UdfClient, info: Any, resolution: str, now: Callable[[], float], *, counts_back: bool = True
    ) -> None:
        self.client = client
        self.info = info
        self.resolution = resolution
        self.bars: list[ChartBar] = []
        self._now = now
        self._counts_back = counts_back
        self._is_at_beginning = False
        self._last: int | None = None

    async def load(self, most: int = 300) -> None:
        """Ask for what a screen shows."""
        await self._ask(self._now(), most)

    async def scroll_back(self, most: int = 300, *, requests: int = 40) -> None:
        """Ask for earlier bars until there are none; fail where that does not end."""
        for _ in range(requests):
            if self._is_at_beginning:
                return
            await self._ask(self.bars[0].time if self.bars else self._now(), most)
        raise AssertionError(f"after {requests} requests there still are earlier bars of {self.info['ticker']}")

    async def _ask(self, end: float, most: int) -> None:
        start = end - most * length_s(self.resolution)
        answer = await self.client.bars(self.info, self.resolution, start, end, most if self._counts_back else None)
        if answer.no_data and answer.next_time_ms is not None:
            assert not self._counts_back, "the last bars before a time do not depend on where they are"
            next_time = answer.next_time_ms // 1000
            assert next_time < start
            # Up to that bar, which is asked for as well.
            await self._ask(next_time + 1, most)
            return
        self._is_at_beginning = answer.no_data
        assert answer.no_data or answer.bars, "an answer without bars has to say that there are none"
        bars = [*answer.bars, *self.bars]
        times = [bar.time for bar in bars]
        assert times == sorted({*times}), "bars ascend and none comes twice"
        assert all(bar.time < end for bar in answer.bars)
        self.bars = bars

    async def pulse(self) -> list[ChartBar]:
        """Renew the newest bars, as every ten seconds; return what listeners are told."""
        end = int(self._now())
        answer = await self.client.bars(self.info, self.resolution, end - 10 * length_s(self.resolution), end, 2)
        if not answer.bars or (self._last is not None and answer.bars[-1].time < self._last):
            return []
        told = answer.bars[-1:]
        if self._last is not None and answer.bars[-1].time > self._last:
            assert len(answer.bars) >= 2, "Not enough bars in history for proper pulse update. Need at least 2."
            told = answer.bars[-2:]
        self._last = answer.bars[-1].time
        return told


def length_s(resolution: str) -> float:
    """Return the length of a bar as the reference client reckons it: seconds and days of several pass for minutes."""
    days = _DAYS.get(resolution.removeprefix("1"))
    if days is None:
        digits = "".join(char for char in resolution if char.isdigit())
        return int(digits) / (24 * 60) * 24 * 60 * 60
    return days * 86_400
