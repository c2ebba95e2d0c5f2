"""Whose ticks of Twelve Data come in, and why not where they do not: the tick stream and what it says of symbols."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import aiohttp

from providers.twelve_data.tick_codec import TickCodec, ticks_of
from providers.twelve_data.waits import WAITS, Waits
from relay import (
    AuthenticationFailed,
    Hosts,
    PriceUpdate,
    ProviderError,
    RateLimited,
    Secret,
    Watchlist,
    event,
    websocket_feed,
)

log = logging.getLogger(__name__)

QUIET_S = 120.0
"""Our choice: after so long without a tick, while its market is open, a symbol is taken not to have ticks."""
REFUSED_AGAIN_S = 900.0
"""Our choice: ticks that were refused are asked for again after this."""
LASTING_S = 60.0
"""Our choice: a connection that lived so long is opened anew without a growing wait."""


class Ticks:
    """What is known of a symbol's ticks. `reason` says why they do not come, empty while nothing is wrong."""

    def __init__(self) -> None:
        self.is_live = False
        self.is_subscribed = False
        self.heard = 0.0
        self.reason = ""
        self.ask_again_at = math.inf


class TickSource:
    """Keeps one tick stream open for the symbols that are wanted, with growing waits while it cannot be had.

    `on_change` is called with a symbol whose ticks begin or cease to come. One line is logged when the stream is lost
    and one when it is back.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        hosts: Hosts,
        key: Secret,
        *,
        on_change: Callable[[str, Ticks], None],
        on_skip: Callable[[str], None],
        monotonic: Callable[[], float],
        now: Callable[[], float],
        waits: Waits = WAITS,
    ) -> None:
        self.symbols: dict[str, Ticks] = {}
        self._session = session
        self._hosts = hosts
        self._key = key
        self._on_change = on_change
        self._monotonic = monotonic
        self._now = now
        self._waits = waits
        self._is_lost = False
        self._watchlist = Watchlist(
            on_accept=lambda key: self._on_subscribed(key.symbol),
            on_reject=lambda key, error: self._on_refused(key.symbol, str(error)),
            on_skip=on_skip,
        )

    @property
    def is_live(self) -> bool:
        """Whether any ticks come in."""
        return any(ticks.is_live for ticks in self.symbols.values())

    def want(self, symbol: str) -> Ticks:
        """Ask for the ticks of a symbol, if that was not done yet."""
        if symbol not in self.symbols:
            self.symbols[symbol] = Ticks()
            self._watchlist.add(ticks_of(symbol))
        return self.symbols[symbol]

    def forget(self, symbol: str) -> None:
        """End the ticks of a symbol."""
        self._watchlist.remove(ticks_of(symbol))
        del self.symbols[symbol]

    def hear(self, symbol: str) -> bool:
        """Note a tick; say whether it is of use."""
        ticks = self.symbols.get(symbol)
        if ticks is None or not ticks.is_subscribed:
            return False
        ticks.heard = self._now()
        if not ticks.is_live:
            self._begin(symbol, ticks)
        return True

    async def listen(self, take: Callable[[PriceUpdate], Awaitable[None]]) -> None:
        """Pass all ticks on, for ever."""
        wait_s = self._waits.least_retry_s
        while True:
            opened = self._monotonic()
            reason = "the provider closed the connection"
            try:
                codec = TickCodec(self._hosts, self._key, self._waits.heartbeat_s)
                async with aclosing(websocket_feed(self._session, codec, self._watchlist)) as feed:
                    async for tick in feed:
                        await take(tick)
            except ProviderError as error:
                reason = str(error)
                if isinstance(error, RateLimited):
                    wait_s = max(wait_s, error.retry_after)
                elif isinstance(error, AuthenticationFailed):
                    # Polls tell whether the key is wrong; here it may only lack the plan.
                    wait_s = self._waits.most_retry_s
            self._on_lost(reason.replace(self._key.reveal(), "***"))
            if self._monotonic() - opened >= LASTING_S:
                wait_s = self._waits.least_retry_s
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
            wait_s = min(self._waits.most_retry_s, 2 * wait_s)

    def look(self, has_traded: Callable[[str, float], bool]) -> None:
        """Notice ticks that stay away though the market `has_traded` for long, and ask again for refused ones."""
        for symbol, ticks in self.symbols.items():
            if ticks.is_live and self._now() - ticks.heard > QUIET_S and has_traded(symbol, QUIET_S):
                self._end(symbol, ticks, f"polling, because no tick arrived for {QUIET_S:.0f} s")
            elif self._monotonic() >= ticks.ask_again_at:
                ticks.ask_again_at = math.inf
                self._watchlist.add(ticks_of(symbol))

    def _on_lost(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            log.warning(
                "twelve_data: no tick stream, polling only: %s",
                reason,
                extra=event("tick_stream_lost", provider="twelve_data", reason=reason),
            )
        for symbol, ticks in self.symbols.items():
            ticks.is_subscribed = False
            if ticks_of(symbol) in self._watchlist:
                self._end(symbol, ticks, f"polling, because the tick stream is not available: {reason}")

    def _on_subscribed(self, symbol: str) -> None:
        if self._is_lost:
            self._is_lost = False
            log.info("twelve_data: the tick stream is back", extra=event("tick_stream_back", provider="twelve_data"))
        if (ticks := self.symbols.get(symbol)) is not None:
            ticks.is_subscribed = True
            ticks.heard = self._now()
            self._begin(symbol, ticks)

    def _on_refused(self, symbol: str, reason: str) -> None:
        if (ticks := self.symbols.get(symbol)) is not None:
            reason = reason.replace(self._key.reveal(), "***")
            log.warning(
                "twelve_data: no ticks of %s, polling it: %s",
                symbol,
                reason,
                extra=event("ticks_refused", provider="twelve_data", symbol=symbol, reason=reason),
            )
            ticks.is_subscribed = False
            ticks.ask_again_at = self._monotonic() + REFUSED_AGAIN_S
            self._end(symbol, ticks, f"polling, because ticks were refused: {reason}")

    def _begin(self, symbol: str, ticks: Ticks) -> None:
        ticks.is_live, ticks.reason = True, ""
        self._on_change(symbol, ticks)

    def _end(self, symbol: str, ticks: Ticks, reason: str) -> None:
        ticks.is_live, ticks.reason = False, reason
        self._on_change(symbol, ticks)
