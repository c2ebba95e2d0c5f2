"""A stand-in for Kraken that misbehaves on demand: its connections, messages and answers; its prices are true."""

import asyncio
import importlib
import random
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from tests.support.untidy import Values

FOLDER = Path(__file__).parents[1] / "plugins" / "kraken"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))
# A plugin's own module, without types.
Kraken: Any = importlib.import_module("kraken_standin").Kraken

GARBAGE = (
    "<html>502</html>",
    "{",
    "null",
    "[]",
    '{"channel":"ohlc"}',
    '{"channel":"ohlc","type":"update","data":null}',
    '{"channel":"ohlc","type":"update","data":[{"symbol":"BTC/USD","interval":1}]}',
    '{"channel":"ohlc","type":"update","data":[{"symbol":"NO/SUCH","interval":1,"interval_begin":"x"}]}',
    '{"method":"subscribe","success":true}',
    '{"channel":["ohlc"],"type":7,"data":"x"}',
)


class TroubledKraken(Kraken):  # type: ignore[misc]
    """What is in `troubles` is wrong just now: `frozen`, `refusing`, `slow`, `late`, `repeated`, `unconfirmed`."""

    def __init__(self, dice: random.Random, pace_s: float = 2.0) -> None:
        super().__init__(pace_s=pace_s)
        # ccxt takes these pairs, which Kraken lists no more, for the usual ones.
        del self.pairs["XBTUSD.d"]
        self.troubles: set[str] = set()
        self.refusal = 503
        self.connects = 0
        self._dice = dice
        self._sockets: set[web.WebSocketResponse] = set()
        self._told: WeakKeyDictionary[web.WebSocketResponse, dict[tuple[str, int], int]] = WeakKeyDictionary()

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def say(self, data: bytes | str) -> None:
        """Send this to everybody."""
        for socket in [*self._sockets]:
            with suppress(ConnectionError):
                await (socket.send_bytes(data) if isinstance(data, bytes) else socket.send_str(data))

    async def litter(self) -> None:
        """Send something that is no message of Kraken's to everybody."""
        await self.say(b"\xff\x00" if self._dice.random() < 0.2 else self._dice.choice(GARBAGE))

    def get_well(self) -> None:
        """End all troubles."""
        self.troubles.clear()
        self.status = 200
        self.errors: list[str] = []
        self.headers: dict[str, str] = {}

    async def _serve(self, request: web.Request) -> Any:
        if "refusing" in self.troubles:
            return web.Response(status=self.refusal, text="<html>refused</html>")
        self.connects += 1
        return await super()._serve(request)

    async def _answer(self, socket: web.WebSocketResponse, carried: dict[str, int], message: Any) -> None:
        self._sockets = {one for one in self._sockets if not one.closed} | {socket}
        await self._thawed()
        if "unconfirmed" in self.troubles and message["method"] == "subscribe":
            return
        await super()._answer(socket, carried, message)

    async def _tell(self, socket: web.WebSocketResponse, kind: str, rows: list[Any]) -> None:
        await self._thawed()
        if "late" in self.troubles:
            await asyncio.sleep(self._dice.uniform(0, 7))
        symbol, minutes = rows[-1]["symbol"], rows[-1]["interval"]
        opened = int(self._opened(rows[-1]))
        before = self._told.setdefault(socket, {}).get((symbol, minutes), opened)
        if kind == "update" and before < opened:
            # Kraken tells each trade: also the last ones of a candle that nobody was told of at this pace.
            await super()._tell(socket, kind, [self._data(symbol, minutes, before)])
        self._told[socket][symbol, minutes] = opened
        await super()._tell(socket, kind, rows)
        if "repeated" in self.troubles:
            # The same again, and what was said of the candle before and of the one before that.
            earlier = [self._data(symbol, minutes, opened - n * minutes * 60) for n in (1, 2)]
            await super()._tell(socket, kind, rows)
            await super()._tell(socket, self._dice.choice(("update", "snapshot")), earlier)

    async def _thawed(self) -> None:
        while "frozen" in self.troubles:  # noqa: ASYNC110 - the test ends it, and not by an event
            await asyncio.sleep(1)

    def _opened(self, row: dict[str, Any]) -> float:
        return datetime.fromisoformat(row["interval_begin"]).timestamp()

    async def _ohlc(self, request: web.Request) -> web.Response:
        if "slow" in self.troubles:
            await asyncio.sleep(self._dice.uniform(0, 40))
        answer: web.Response = await super()._ohlc(request)
        return answer


class KrakenTruth:
    """The candles of a stream of the stand-in."""

    def __init__(self, venue: TroubledKraken, interval: str) -> None:
        self._venue = venue
        self._minutes = int(interval[:-1])
        self.length_s = self._minutes * 60

    def times_between(self, after: int, before: int) -> range:
        """Return the open times with `after` < time < `before`."""
        return range((after // self.length_s + 1) * self.length_s, before, self.length_s)

    def ends_at(self, time: int) -> float:
        """Return when a candle is over."""
        return time + self.length_s

    def final(self, time: int) -> list[Values]:
        """Return the values of a candle that is over."""
        is_over = time % self.length_s == 0 and self.ends_at(time) <= self._venue.now()
        return [self._venue.candle(time, self._minutes)] if is_over else []
