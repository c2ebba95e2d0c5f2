"""The files of a new provider project; words between @ are replaced."""

PROVIDER = '''"""Candles of @TITLE@ for market-relay."""

import orjson
from relay import (
    API_VERSION,
    Accepted,
    Candle,
    CloseOnNext,
    FeedCodec,
    Hosts,
    Instrument,
    ProviderInfo,
    Rejected,
    Setting,
    StreamKey,
    UnknownSymbol,
    ask_rest,
    hookimpl,
    page_candles,
    websocket_feed,
)

__version__ = "0.1"

INTERVALS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
PAGE = 500
"""How many candles the venue gives at once."""


def key_of(message):
    return StreamKey(message["symbol"], message["interval"])


def candle_of(row):
    return Candle(int(row["time"]), *(float(row[name]) for name in ("open", "high", "low", "close", "volume")))


class @CLASS@Codec(FeedCodec):
    """Messages in, values out, without I/O; one codec serves one connection."""

    heartbeat = '{"op":"ping"}'

    def __init__(self, url):
        super().__init__(url)
        self._closing = CloseOnNext()

    def subscribe(self, keys):
        self._closing.forget(keys)
        return [self._request("subscribe", keys)]

    def unsubscribe(self, keys):
        return [self._request("unsubscribe", keys)]

    def _request(self, op, keys):
        streams = [{"symbol": key.symbol, "interval": key.interval} for key in keys]
        return orjson.dumps({"op": op, "streams": streams}).decode()

    def decode(self, raw):
        message = orjson.loads(raw)
        kind = message["type"]
        if kind == "candle":
            # Where the venue says that a candle is closed, yield PriceUpdate(key, candle, is_closed=…, ts_event_ms=…).
            yield from self._closing.take(key_of(message), candle_of(message), message["sent_ms"])
        elif kind == "subscribed":
            yield Accepted((key_of(message),))
        elif kind == "refused":
            yield Rejected((key_of(message),), message["reason"])


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="@NAME@",
        api=API_VERSION,
        title="@TITLE@",
        asset_classes=("crypto",),
        intervals=tuple(INTERVALS),
        settings=(
            Setting("ws_url", "text", "ws://127.0.0.1:8700/ws", "Address of the stream server"),
            Setting("rest_url", "urls", ("http://127.0.0.1:8700",), "Addresses of the REST server"),
        ),
    )


@hookimpl
def relay_stream(watchlist, session, settings):
    return websocket_feed(session, @CLASS@Codec(settings["ws_url"]), watchlist)


@hookimpl
async def relay_candles(symbol, interval, start, end, limit, session, settings):
    names = {seconds: name for name, seconds in INTERVALS.items()}

    async def window(first, end, step_s):
        params = {"symbol": symbol, "interval": names[step_s], "from": first, "to": end}
        answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)
        if answer.status == 404:
            raise UnknownSymbol(f"@TITLE@ does not list {symbol}")
        if answer.status != 200:
            raise answer.error("")
        return [candle_of(row) for row in answer.body]

    step_s = INTERVALS[interval]
    coarse_s = INTERVALS["1d"] if step_s < INTERVALS["1d"] else None
    return await page_candles(
        window, start=start, end=end, limit=limit, step_s=step_s, page=PAGE, oldest=1_500_000_000, coarse_s=coarse_s
    )


@hookimpl
async def relay_instruments(session, settings):
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/symbols")
    if answer.status != 200:
        raise answer.error("the list of symbols")
    return [Instrument(symbol, "crypto", *symbol.split("-")) for symbol in answer.body]
'''

STAND_IN = '''"""A stand-in for @TITLE@ with made-up prices; change it with the provider. As a program it serves."""

import asyncio
import time

from aiohttp import WSMsgType, web

STEPS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
SYMBOLS = ("AAA-BBB", "CCC-BBB")
PAGE = 500


def row(opened, step):
    """Return the candle of that time; it grows until it is over."""
    done = min(1.0, (time.time() - opened) / step)
    first = 100.0 + opened // 60 % 50
    return {"time": opened, "open": first, "high": first + done, "low": first, "close": first + done, "volume": done}


class StandIn:
    """Use it with `async with`; `settings` are those of the provider."""

    def __init__(self, port=0):
        self._port = port
        self._began = int(time.time()) // 86_400 * 86_400 - 20 * 86_400
        app = web.Application()
        app.add_routes(
            [web.get("/ws", self._serve), web.get("/candles", self._candles), web.get("/symbols", self._symbols)]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self):
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.settings = {"ws_url": f"ws://{host}:{port}/ws", "rest_url": f"http://{host}:{port}"}
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _symbols(self, request):
        return web.json_response(SYMBOLS)

    async def _candles(self, request):
        if request.query["symbol"] not in SYMBOLS:
            return web.json_response({"error": "unknown symbol"}, status=404)
        step = STEPS[request.query["interval"]]
        first = max(self._began, -(-int(request.query["from"]) // step) * step)
        times = range(first, min(int(request.query["to"]), int(time.time()) + 1), step)
        return web.json_response([row(opened, step) for opened in times[:PAGE]])

    async def _serve(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        carried = {}
        sender = asyncio.create_task(self._send(socket, carried))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, carried, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _answer(self, socket, carried, message):
        if message["op"] == "ping":
            await socket.send_json({"type": "pong"})
            return
        for stream in message["streams"]:
            name = (stream["symbol"], stream["interval"])
            if name[0] not in SYMBOLS:
                await socket.send_json({"type": "refused", "reason": f"there is no {name[0]}", **stream})
            elif message["op"] == "subscribe":
                carried[name] = None
                await socket.send_json({"type": "subscribed", **stream})
            else:
                carried.pop(name, None)

    async def _send(self, socket, carried):
        while True:
            now = time.time()
            for symbol, interval in list(carried):
                step = STEPS[interval]
                opened = int(now) // step * step
                head = {"type": "candle", "symbol": symbol, "interval": interval, "sent_ms": int(now * 1000)}
                await socket.send_json({**head, **row(opened, step)})
            await asyncio.sleep(0.2)


async def main():
    async with StandIn(8700) as venue:
        print(f"serving {venue.settings['rest_url']}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
'''

TEST = """from relay import Candle, PriceUpdate, StreamKey
from relay.testing import check_provider

from @MODULE@ import @CLASS@Codec
from @NAME@_standin import StandIn

KEY = StreamKey("AAA-BBB", "1m")


async def test_conformance():
    async with StandIn() as venue:
        await check_provider("@MODULE@", symbol="AAA-BBB", interval="1m", settings=venue.settings)


def message(opened, close):
    return (
        f'{{"type":"candle","symbol":"AAA-BBB","interval":"1m","sent_ms":{opened * 1000},'
        f'"time":{opened},"open":1,"high":9,"low":1,"close":{close},"volume":2}}'
    )


def test_candle_is_closed_when_the_next_one_begins():
    codec = @CLASS@Codec("ws://venue")
    codec.subscribe([KEY])
    assert list(codec.decode(message(60, 3))) == [PriceUpdate(KEY, Candle(60, 1.0, 9.0, 1.0, 3.0, 2.0), False, 60_000)]
    closed, following = codec.decode(message(120, 4))
    assert (closed.is_closed, closed.candle.close) == (True, 3.0)
    assert (following.is_closed, following.candle.close) == (False, 4.0)
"""

PACKAGING = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "@DISTRIBUTION@"
version = "0.1"
description = "Candles of @TITLE@ for market-relay"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["market-relay>=@VERSION@"]

[project.optional-dependencies]
test = ["pytest", "pytest-asyncio"]

[project.entry-points."relay.providers"]
@NAME@ = "@MODULE@"

[tool.setuptools]
py-modules = ["@MODULE@"]

[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
"""

README = """# @TITLE@ for market-relay

A provider for [market-relay]: candles of @TITLE@. It was written by `relay plugins new @NAME@` and works as it stands,
against a venue that does not exist: the stand-in in `@NAME@_standin.py`.

    pip install -e '.[test]'
    pytest

To see it live, serve the stand-in in one terminal and the relay in another:

    python @NAME@_standin.py
    relay serve --plugins ./@MODULE@.py
    relay tail AAA-BBB@1m

Then make it the provider of your venue: the addresses, the intervals, `decode` and the paths in `@MODULE@.py`, and the
same in the stand-in. Once it is installed beside the relay it is loaded without `--plugins`.
"""
