"""What is pure of the provider for exchanges of ccxt; `tests/peers/test_ccxt_provider.py` has ccxt itself."""

import asyncio
import configparser
import importlib.util
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from providers import BUILTIN
from providers.ccxt import library
from providers.ccxt.capabilities import Capabilities, capabilities_of
from providers.ccxt.history import DAY_S, STEPS, CandlePages
from providers.ccxt.markets import DECIMAL_PLACES, TICK_SIZE, read_instrument, step_of
from providers.ccxt.options import fault_of_options
from providers.ccxt.pacing import Turns
from providers.ccxt.rows import FinalStates, read_rows_of
from relay.config.settings import Config
from relay.core.errors import ConfigError
from relay.core.model import Candle, Instrument, PriceUpdate, StreamKey
from relay.plugins.loader import PluginHost
from tests.support.virtual_time import VirtualLoop

BTC = StreamKey("BTC/USDT", "1m")


def candle(time: int, close: float = 1.0) -> Candle:
    return Candle(time, 1.0, 9.0, 0.5, close, 2.0)


def told(closing: FinalStates, *candles: Candle) -> list[tuple[int, float, bool]]:
    updates: list[PriceUpdate] = list(closing.take(candles))
    assert {update.key for update in updates} <= {BTC}
    return [(update.candle.time, update.candle.close, update.is_closed) for update in updates]


# -- which candles are closed --------------------------------------------------------------------------


def test_candle_is_closed_with_what_was_heard_last_when_the_next_one_begins() -> None:
    closing = FinalStates(BTC, hears_all=True)
    assert told(closing, candle(0), candle(60, 2.0)) == [(60, 2.0, False)]
    assert told(closing, candle(60, 3.0)) == [(60, 3.0, False)]
    assert told(closing, candle(120, 4.0)) == [(60, 3.0, True), (120, 4.0, False)]
    assert told(closing, candle(120, 5.0), candle(180, 6.0)) == [(120, 5.0, True), (180, 6.0, False)]


def test_candle_heard_before_a_loss_is_left_open() -> None:
    closing = FinalStates(BTC, hears_all=True)
    told(closing, candle(60))
    closing.forget()
    assert told(closing, candle(60), candle(300)) == [(300, 1.0, False)]


def test_polled_candle_is_closed_only_by_an_answer_that_has_the_next_one() -> None:
    closing = FinalStates(BTC, hears_all=False)
    told(closing, candle(60, 2.0))
    assert told(closing, candle(180, 4.0)) == [(180, 4.0, False)]
    assert told(closing, candle(60), candle(180, 5.0), candle(240)) == [(180, 5.0, True), (240, 1.0, False)]


def test_older_answer_says_nothing() -> None:
    closing = FinalStates(BTC, hears_all=True)
    told(closing, candle(120))
    assert told(closing, candle(60)) == []


@pytest.mark.parametrize("hiding", [(), (candle(0),)])
def test_candle_is_left_open_whose_last_state_was_hidden(hiding: tuple[Candle, ...]) -> None:
    closing = FinalStates(BTC, hears_all=True)
    told(closing, candle(60, 2.0))
    assert told(closing, *hiding) == []
    assert told(closing, candle(120, 4.0)) == [(120, 4.0, False)]
    assert told(closing, candle(180)) == [(120, 4.0, True), (180, 1.0, False)]


def test_rows_are_ordered_once_each_and_without_those_that_have_no_prices() -> None:
    rows: list[list[Any]] = [
        [120_000, 1, 2, 0.5, 1.5, None],
        [60_000, 1, 2, 0.5, 1.5, 7],
        [180_000, None, None, None, None, 0],
        [60_000, 1, 2, 0.5, 1.6, 8],
    ]
    assert read_rows_of(rows) == [Candle(60, 1.0, 2.0, 0.5, 1.6, 8.0), Candle(120, 1.0, 2.0, 0.5, 1.5, 0.0)]


# -- history -------------------------------------------------------------------------------------------

NOW = 1_800_000_000
LISTED = NOW - 30 * DAY_S


class Exchange:
    """One of three kinds: it gives what follows `since`, or what is in that window, or its newest candles."""

    def __init__(self, kind: str, page: int = 100, hole: range = range(0)) -> None:
        self.kind = kind
        self.page = page
        self.hole = hole
        self.asked = 0

    async def ask(self, interval: str, since: int, count: int) -> list[Candle]:
        self.asked += 1
        assert count <= self.page
        step = STEPS[interval]
        first = -(-max(since, LISTED) // step) * step
        if self.kind == "newest":
            first = max(first, NOW - 719 * step)
        times = [at for at in range(first, NOW + 1, step) if at not in self.hole or at + step > self.hole.stop]
        if self.kind == "window":
            times = [at for at in times if at < since + count * step]
        return [candle(at) for at in times[:count]]

    def pager(self, interval: str = "1m") -> CandlePages:
        return CandlePages(self.ask, interval, self.page, ("1m", "1h", "1d"))


@pytest.fixture
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: float(NOW))


@pytest.mark.usefixtures("_now")
@pytest.mark.parametrize("kind", ["following", "window", "newest"])
async def test_history_is_whole_over_pages_however_an_exchange_pages(kind: str) -> None:
    exchange = Exchange(kind)
    found = await exchange.pager().last(2**31, 500)
    assert [one.time for one in found] == list(range(NOW - 499 * 60, NOW + 1, 60))
    found = await exchange.pager().first(NOW - 600 * 60, NOW - 50 * 60, 500)
    assert [one.time for one in found] == list(range(NOW - 600 * 60, NOW - 100 * 60, 60))
    assert exchange.asked < 15


@pytest.mark.usefixtures("_now")
@pytest.mark.parametrize("kind", ["following", "window"])
async def test_history_goes_on_behind_a_hole_of_days(kind: str) -> None:
    hole = range(NOW - 20 * DAY_S, NOW - 10 * DAY_S)
    exchange = Exchange(kind, hole=hole)
    before = await exchange.pager().last(hole.stop, 50)
    assert [one.time for one in before] == list(range(hole.start - 3000, hole.start, 60))
    after = await exchange.pager().first(hole.start, 2**31, 50)
    assert [one.time for one in after] == list(range(hole.stop, hole.stop + 3000, 60))
    # Not one for each empty page, which would be 144 in each direction.
    assert exchange.asked < 80


@pytest.mark.usefixtures("_now")
async def test_few_requests_find_out_that_there_is_nothing_older() -> None:
    exchange = Exchange("newest")
    assert await exchange.pager().last(NOW - 800 * 60, 500) == []
    assert await exchange.pager().first(NOW - 3000 * 60, NOW - 900 * 60, 500) == []
    assert exchange.asked < 6


# -- instruments, capabilities -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "mode", "step"),
    [
        (0.01, TICK_SIZE, "0.01"),
        (1e-08, TICK_SIZE, "0.00000001"),
        (5.0, TICK_SIZE, "5.0"),
        (3, DECIMAL_PLACES, "0.001"),
        (0, DECIMAL_PLACES, "1"),
        (-2, DECIMAL_PLACES, "100"),
        (5, 3, None),
        (None, TICK_SIZE, None),
        (0, TICK_SIZE, None),
    ],
)
def test_steps_are_decimal_texts_in_both_modes(precision: float | None, mode: int, step: str | None) -> None:
    assert step_of(precision, mode) == step


def test_contracts_are_futures_and_only_dated_ones_expire() -> None:
    market = {
        **{"symbol": "BTC/USDT:USDT-271231", "type": "future", "base": "BTC", "quote": "USDT", "active": None},
        **{"precision": {"price": 0.1, "amount": None}, "expiry": 1_830_000_000_000, "created": None},
    }
    expected: dict[str, Any] = {"asset_class": "future", "base": "BTC", "quote": "USDT", "price_step": "0.1"}
    assert read_instrument(market, TICK_SIZE) == Instrument(
        "BTC/USDT:USDT-271231", **expected, expires_at=1_830_000_000
    )
    swap = {**market, "symbol": "BTC/USDT:USDT", "type": "swap", "active": False}
    assert read_instrument(swap, TICK_SIZE) == Instrument("BTC/USDT:USDT", **expected, status="paused")


def test_a_page_has_what_every_type_of_market_gives() -> None:
    features = {
        "spot": {"fetchOHLCV": {"limit": 1000}},
        "swap": {"linear": {"fetchOHLCV": {"limit": 300}}, "inverse": None},
        "future": None,
    }
    frames = {"1m": "1", "2h": None, "2w": "x", "1d": "D"}
    has = {"watchOHLCV": True, "watchOHLCVForSymbols": None, "spot": True, "swap": True}
    said = capabilities_of(SimpleNamespace(name="X", has=has, timeframes=frames, features=features, rateLimit=50))
    assert (said.page, said.intervals, said.is_live, said.is_batched) == (300, ("1m", "1d"), True, False)
    assert (said.request_s, said.market_types) == (0.05, ("spot", "swap"))


@pytest.mark.parametrize(
    ("has", "wanted", "listed"),
    [
        (("spot", "swap"), None, ("spot",)),
        (("swap", "future"), None, ("swap", "future")),
        (("spot", "swap"), ("swap",), ("swap",)),
        ((), None, ("spot", "swap", "future")),
    ],
)
def test_spot_is_listed_or_all_where_there_is_none(
    has: tuple[str, ...], wanted: tuple[str, ...] | None, listed: tuple[str, ...]
) -> None:
    known = Capabilities("X", ("1m",), 100, is_live=True, is_batched=True, request_s=1.0, market_types=has)
    assert known.types(wanted) == listed


async def test_requests_wait_for_their_turn_in_order() -> None:
    turns, loop, begun = Turns(0.5), asyncio.get_running_loop(), []

    async def ask(name: str, cost: float) -> None:
        await turns.acquire(cost)
        begun.append((name, round(loop.time() - start, 3)))

    start = loop.time()
    await asyncio.gather(ask("a", 1), ask("b", 4), ask("c", 1))
    assert begun == [("a", 0.0), ("b", 0.5), ("c", 2.5)]


async def test_requests_that_waited_while_the_loop_was_busy_do_not_come_at_once() -> None:
    turns, loop, begun = Turns(0.25), asyncio.get_running_loop(), []

    async def ask() -> None:
        await turns.acquire()
        begun.append(loop.time())
        if len(begun) == 1:
            # All that is due in the next second comes late.
            cast(VirtualLoop, loop).now += 1.0

    await asyncio.gather(*(ask() for _ in range(4)))
    assert [round(later - earlier, 3) for earlier, later in pairwise(begun)] == [1.0, 0.25, 0.25]


# -- the extra -------------------------------------------------------------------------------------------


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PluginHost]:
    """Configure a relay in which ccxt is not installed."""
    find = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "ccxt", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ccxt" else find(name, *more))

    def configure(**tables: Any) -> PluginHost:
        host, config = PluginHost(), Config(instances=tables)
        host.find(BUILTIN, installed=False, config=config)
        host.configure(config)
        return host

    return configure


ADDRESS = "https://{hostname}/v2"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"timeout": 5000, "hostname": "x.example", "urls": {"api": {"public": ADDRESS, "ws": {"v2": "ws://x"}}}},
            None,
        ),
        ({"urls": {"api": ADDRESS}, "options": {"ws": {"cost": 1}}}, None),
        ({"apiKey": "k3y"}, "has apiKey, which is the setting api_key"),
        ({"verbose": True}, "has verbose, which the relay sets itself"),
        ({"timeout": "abc"}, "has timeout, which is not a number of milliseconds above 0"),
        ({"rateLimit": -5}, "has rateLimit, which is not a number of milliseconds above 0"),
        ({"has": "x"}, "has has, which is not a table"),
        ({"options": {"ws": "x"}}, "has options.ws, which is not a table"),
        ({"urls": {"api": 7}}, "has urls.api, which is neither an address nor a table of addresses"),
        (
            {"urls": {"api": {"ws": {"v2": "x.example"}}}},
            "has urls.api.ws.v2, which is not an address; addresses begin with http://, https://, ws://, wss://",
        ),
    ],
)
def test_options_that_would_fail_later_are_named(options: dict[str, Any], fault: str | None) -> None:
    assert fault_of_options(options) == fault


def test_fault_of_a_table_shows_nothing_of_it(configured: Callable[..., PluginHost]) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(kraken={"uses": "ccxt", "options": {"headers": {"Key": "k3y"}, "timeout": 0}})
    said = "options in [providers.kraken]: the table has timeout, which is not a number of milliseconds above 0"
    assert str(caught.value) == said


def test_without_the_extra_the_error_says_how_to_install_it(
    configured: Callable[..., PluginHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(kraken={"uses": "ccxt", "exchange": "kraken"})
    assert str(caught.value) == (
        "exchange in [providers.kraken]: 'kraken' needs ccxt, which is not installed; run: "
        "pip install 'market-relay[ccxt]'"
    )
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert library.lack_of_library() == library.IS_FROZEN


def test_nothing_of_ccxt_is_needed_where_no_instance_uses_it(configured: Callable[..., PluginHost]) -> None:
    host = configured()
    assert "ccxt" not in host.loaded
    assert not host.failures
    setup = configparser.ConfigParser()
    setup.read(Path(library.__file__).parents[2] / "setup.cfg")
    assert "ccxt" not in setup["options"]["install_requires"]
    assert "ccxt" in setup["options.extras_require"]["ccxt"]
