"""One exchange with one configuration: its clients of ccxt, which share markets, pace and the relay's connections."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import aiohttp

from providers.ccxt.capabilities import Capabilities, capabilities_of
from providers.ccxt.failures import judged
from providers.ccxt.library import errors, exchange_class
from providers.ccxt.markets import is_wanted
from providers.ccxt.pacing import Turns
from providers.ccxt.rows import read_rows_of
from relay import Candle, StreamKey

Settings = Mapping[str, Any]

_LINEAR = {"swap": {"swap", "linear", "inverse"}, "future": {"future", "linear", "inverse"}, "spot": {"spot"}}
"""What exchanges call the types of markets that they list: `options.fetchMarkets.types` of ccxt."""

_TOO_MANY = {418, 429}
"""Statuses of too many requests; the first one is that of Binance for an address that went on asking."""


class Client:
    """What a client of ccxt does otherwise here; the class of the exchange is beside it."""

    turns: Turns
    kinds: ModuleType
    market_types: tuple[str, ...]
    connections = 0
    """How many connections were made. One more means that messages may have been lost."""

    async def throttle(self, cost: float | None = None) -> None:
        """Wait for the turn of a request."""
        await self.turns.acquire(cost)

    @property
    def is_connected(self) -> bool:
        """Whether a WebSocket is open."""
        connections: Mapping[str, Any] = self.clients or {}  # type: ignore[attr-defined]
        return any(not one.closed() for one in connections.values())

    def on_connected(self, client: Any, message: Any = None) -> None:
        """Count a connection."""
        self.connections += 1
        super().on_connected(client, message)  # type: ignore[misc]

    def client(self, url: str) -> Any:
        """Return the connection to an address. A message that cannot be read ends it: it would be silent else."""
        connection = super().client(url)  # type: ignore[misc]
        if "handle_message" not in vars(connection):
            # ccxt reads it in a callback of the event loop: nobody hears of an error there, and nothing more is read.
            connection.handle_message = partial(self._read, connection, connection.handle_message)
        return connection

    def _read(self, connection: Any, read: Callable[[Any], None], message: Any) -> None:
        try:
            read(message)
        except Exception as error:  # noqa: BLE001 - whatever the code of one exchange raises
            connection.on_error(self.kinds.BadResponse(f"a message cannot be read: {error!r}"))

    def handle_errors(self, code: int, reason: str, url: str, *more: Any) -> Any:
        """Judge an answer. A refusal by its status is one, whatever the code of one exchange makes of its body."""
        if code in _TOO_MANY:
            raise self.kinds.RateLimitExceeded(f"HTTP {code} of {url}")
        try:
            return super().handle_errors(code, reason, url, *more)  # type: ignore[misc]
        except self.kinds.ExchangeError as error:
            if code >= 500 and type(error) is self.kinds.ExchangeError:
                raise self.kinds.ExchangeNotAvailable(str(error)) from None
            raise

    async def fetch_markets(self, params: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the markets that are wanted: all others would only be kept."""
        found = await super().fetch_markets(dict(params or {}))  # type: ignore[misc]
        return [market for market in found if is_wanted(market, self.market_types)]


class ListingClient(Client):
    """A client that reads lists of markets in a thread; its requests are those of a client of the relay's loop.

    To read some thousand markets takes a second of the processor, and more on a busy machine.
    """

    fetcher: Any
    home: asyncio.AbstractEventLoop

    async def throttle(self, cost: float | None = None) -> None:
        """Have the next requests wait for longer: these are few, and another thread cannot wait for a turn."""
        self.home.call_soon_threadsafe(self.turns.charge, cost)

    async def fetch(self, *request: Any, **more: Any) -> Any:
        """Send a request."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(request, more), self.home))

    async def _ask(self, request: tuple[Any, ...], more: dict[str, Any]) -> Any:
        return await self.fetcher.fetch(*request, **more)


class Venue:
    """The clients for one setting of an instance."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.kinds = errors()
        self._class = type("FollowedExchange", (Client, exchange_class(settings["exchange"])), {})
        self._listing_class = type("ListedExchange", (ListingClient, exchange_class(settings["exchange"])), {})
        self.capabilities: Capabilities = capabilities_of(exchange_class(settings["exchange"])())
        self.market_types = self.capabilities.types(settings["market_types"])
        self._turns = Turns(self.capabilities.request_s)
        self._messages = Turns(1.0 / settings["messages_per_second"])
        self.agreeing: set[str] = set()
        """Intervals of which live candles open when those of history do."""
        self.unanswered: set[StreamKey] = set()
        """Streams of which nothing came over a connection, although they are traded."""
        self._rest: Any = None
        self._loading: asyncio.Task[None] | None = None

    def new_client(self, session: aiohttp.ClientSession | None, kind: type[Any] | None = None) -> Any:
        """Return a client that uses a session of the relay and does not close it."""
        client = (kind or self._class)(self._config())
        client.turns, client.kinds = self._turns, self.kinds
        client.market_types = self.market_types
        client.session, client.own_session = session, False
        # It waits for connections to close that are the relay's here.
        client.timeout_on_exit = 0
        if self._settings["sandbox"]:
            client.set_sandbox_mode(True)
        _limit_listing(client, self.market_types)
        return client

    def _config(self) -> dict[str, Any]:
        config = _plain(self._settings["options"] or {})
        for name, key in (("apiKey", "api_key"), ("secret", "api_secret"), ("password", "api_password")):
            if (secret := self._settings[key]) is not None:
                config[name] = secret.reveal()
        options = config.setdefault("options", {})
        # Whoever sends on a WebSocket waits for a turn as well, each message for one.
        options["ws"] = {**(options.get("ws") or {}), "throttle": self._take_message, "cost": 1}
        # Lists of currencies are requests more, of some exchanges for a key only, and say nothing of candles.
        config["has"] = {**(config.get("has") or {}), "fetchCurrencies": False}
        # A list of markets has megabytes, and nothing here reads the last answer.
        unread = {"enableLastHttpResponse": False, "enableLastJsonResponse": False}
        return {**config, **unread, "newUpdates": True, "enableRateLimit": True}

    @property
    def is_sending(self) -> bool:
        """Whether a message waits for its turn, such as one that subscribes."""
        return self._messages.is_waited_for

    async def _take_message(self, cost: float | None = None) -> None:
        await self._messages.acquire(cost)

    # -- markets and requests ----------------------------------------------------------------------

    async def ready(self, session: aiohttp.ClientSession, *, reload: bool = False) -> Any:
        """Return the client for requests, with its markets; whoever comes meanwhile waits for the same ones.

        Raises `ProviderError`.
        """
        if self._rest is None:
            self._rest = self.new_client(session)
        self._rest.session = session
        if (self._loading is None or self._loading.done()) and (reload or not self._rest.markets):
            self._loading = asyncio.create_task(self._load(self._rest), name=f"markets of {self.capabilities.name}")
            # Whoever waited may have been cancelled; a failure is no mistake that nobody saw.
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self._loading is not None and not (self._loading.done() and self._rest.markets):
            # One that is cancelled does not cancel the others.
            await asyncio.shield(self._loading)
        return self._rest

    async def _load(self, client: Any) -> None:
        with judged(self.kinds, "its markets", client):
            listing = self.new_client(None, self._listing_class)
            listing.fetcher, listing.home = client, asyncio.get_running_loop()
            await self._turns.acquire()
            await asyncio.to_thread(asyncio.run, listing.load_markets(True))
            client.set_markets_from_exchange(listing)
            client.markets_loading = asyncio.get_running_loop().create_future()
            client.markets_loading.set_result(client.markets)

    async def live_client(self, session: aiohttp.ClientSession) -> Any:
        """Return a client of its own for a feed, with the markets of the one for requests. Raises `ProviderError`."""
        await self.ready(session)
        client = self.new_client(session)
        self.share_markets(client)
        return client

    def share_markets(self, client: Any) -> None:
        """Have a client use the markets that were listed last."""
        client.set_markets_from_exchange(self._rest)
        # Each call asks for them first, and gets these.
        client.markets_loading = asyncio.get_running_loop().create_future()
        client.markets_loading.set_result(client.markets)

    async def rows(
        self, session: aiohttp.ClientSession, symbol: str, interval: str, since: int, count: int
    ) -> list[Candle]:
        """Return candles from an open time on, oldest first, `count` of them at most if there are more.

        An exchange may give fewer, or only those of the next `count` intervals. Raises `ProviderError`.
        """
        client = await self.ready(session)
        what = f"candles of {symbol}@{interval}"
        with judged(self.kinds, what, client):
            found = read_rows_of(await client.fetch_ohlcv(symbol, interval, since * 1000, count))
        return [candle for candle in found if candle.time >= since]

    async def close(self) -> None:
        """Close the client for requests; feeds close theirs."""
        loading, self._loading = self._loading, None
        if loading is not None and not loading.done():
            loading.cancel()
            await asyncio.wait((loading,))
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.close()


def _limit_listing(client: Any, types: tuple[str, ...]) -> None:
    """Have an exchange that lists its markets by types asked for the wanted types only."""
    listing = client.options.get("fetchMarkets")
    known = listing.get("types") if isinstance(listing, dict) else None
    if isinstance(known, list):
        wanted = set().union(*(_LINEAR[kind] for kind in types))
        listing["types"] = [kind for kind in known if kind in wanted] or known


def _plain(value: Any) -> Any:
    """Return a setting as ccxt takes it: it changes dicts, and knows no other mappings."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
