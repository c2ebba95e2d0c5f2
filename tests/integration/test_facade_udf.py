"""The facade for charts: a client that asks what the reference client asks, over all providers."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from providers import BUILTIN
from relay.app import HUB
from relay.core.clock import Clock
from relay.core.model import StreamKey
from relay.streams.subscriptions import CONNECTED
from relay.web.facades.udf.resolutions import interval_of
from tests.conftest import StartRelay
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox
from tests.support.stock_venue import StockVenue, holidays
from tests.support.udf_client import Chart, ChartBar, ServerRefusal, UdfClient, UnresolvedSymbol

TOKEN = "a-token-of-this-test-0123456789"
DAY_S = 86_400
SCROLLED = {"crypto": "1W", "forex": "1M", "futures": "1W", "stock": "1D"}
"""What is scrolled back to the beginning, by type: years of shorter bars take long to make up."""


async def candles(relay: Running, symbol: str, resolution: str, **query: Any) -> list[ChartBar]:
    """Return what the relay's own route has."""
    asked = {"symbol": symbol, "interval": interval_of(resolution), "limit": 5000, **query}
    answer = await relay.get("history", **asked)
    assert answer.status == 200, answer.text
    return [ChartBar(*(row[name] for name in ("time", "open", "high", "low", "close", "volume")))
            for row in answer.body["candles"]]  # fmt: skip


def stopped(now: float) -> Callable[[], float]:
    """Return a clock that stays, so that a chart ends where it did when it was begun."""
    return lambda: now


def closed(bars: list[ChartBar], now: float, length_s: float) -> list[ChartBar]:
    return [bar for bar in bars if bar.time + length_s <= now]


async def test_every_symbol_can_be_found_loaded_and_scrolled_back_to_its_beginning(relay_with: StartRelay) -> None:
    async with Sandbox(futures=True, forex_always_open=True) as sandbox:
        venue = StockVenue()
        relay = await relay_with(sandbox=sandbox, builtin=(*BUILTIN, venue))
        client, seen = UdfClient(relay), set[str]()
        config = await client.ready()
        assert [one["value"] for one in config["exchanges"]] == [
            "", "BINANCE", "BINANCE_USDM", "STOCK_VENUE", "TWELVE_DATA",
        ]  # fmt: skip
        for kind in ("crypto", "forex", "futures", "stock"):
            assert kind in [one["value"] for one in config["symbols_types"]]
            hits = [hit for hit in await client.search("", kind) if hit["type"] == kind]
            for hit in hits[:8]:
                assert hit in await client.search(hit["full_name"])
                info = await client.resolve(hit["ticker"])
                assert (info["name"], info["type"]) == (hit["symbol"], kind)
                # What charts resolve where no ticker was kept.
                assert (await client.resolve(hit["full_name"]))["ticker"] == hit["ticker"]
                now = sandbox.clock.now()
                chart = Chart(client, info, SCROLLED[kind], stopped(now))
                await chart.load()
                await chart.scroll_back()
                whole = [one for one in await candles(relay, hit["ticker"], SCROLLED[kind]) if one.time < now]
                # A contract that is delivered may be as young as its quarter.
                assert len(chart.bars) == len(whole) > (0 if kind == "futures" else 10)
                times = {bar.time: bar for bar in whole}
                for bar in closed(chart.bars, now, 31 * DAY_S):
                    opened = bar.time if kind != "stock" else venue.calendar.midnight(bar.time // DAY_S)
                    assert bar._replace(time=opened) == times[opened]
                seen.add(hit["ticker"])
        assert len(seen) >= 20


@pytest.mark.parametrize("name", ["binance:BTCUSDT", "twelve_data:EUR/USD", "stock_venue:ACME"])
async def test_bars_of_every_resolution_are_those_of_history(
    sandbox: Sandbox, relay_with: StartRelay, name: str
) -> None:
    relay = await relay_with(builtin=(*BUILTIN, StockVenue()))
    client = UdfClient(relay)
    info = await client.resolve(name)
    for resolution in info["supported_resolutions"]:
        now = sandbox.clock.now()
        chart = Chart(client, info, resolution, stopped(now))
        await chart.load(50)
        whole = [one for one in await candles(relay, name, resolution, limit=60) if one.time < now][-len(chart.bars) :]
        is_dated = name.startswith("stock") and resolution[-1] in "DWM"
        assert len(chart.bars) > (1 if resolution == "1M" else 10)
        # The newest one goes on.
        for bar, candle in zip(chart.bars[:-1], whole[:-1], strict=True):
            assert bar[1:] == candle[1:]
            assert bar.time == candle.time or (is_dated and bar.time % DAY_S == 0)


# -- what a chart knows of an instrument -------------------------------------------------------------------------------


async def test_steps_hours_and_resolutions_are_those_of_the_instrument(relay_with: StartRelay) -> None:
    tables = {"twelve_data": {"market_hours": "forex"}}
    client = UdfClient(await relay_with(builtin=(*BUILTIN, StockVenue()), tables=tables))
    crypto, forex = await client.resolve("BTCUSDT"), await client.resolve("eur/usd")
    metal, stock = await client.resolve("TWELVE_DATA:XAU/USD"), await client.resolve("BRK.B")
    assert [(one["session"], one["timezone"]) for one in (crypto, forex, metal, stock)] == [
        ("24x7", "Etc/UTC"),
        ("1700-1700", "America/New_York"),
        ("1800-1700", "America/New_York"),
        ("0930-1600", "America/New_York"),
    ]
    assert [(one["minmov"], one["pricescale"]) for one in (crypto, forex, stock)] == [(1, 100), (1, 100_000), (5, 100)]
    assert (await client.resolve("USD/JPY"))["pricescale"] == 1000
    assert (crypto["has_seconds"], crypto["seconds_multipliers"], forex["has_seconds"]) == (True, ["1"], False)
    # Those that are built count as well.
    assert forex["intraday_multipliers"] == ["1", "3", "5", "15", "30", "60", "120", "240", "360", "480", "720"]
    assert stock["supported_resolutions"] == [
        "15",
        "30",
        "60",
        "120",
        "240",
        "360",
        "480",
        "720",
        "1D",
        "3D",
        "1W",
        "1M",
    ]
    assert (stock["daily_multipliers"], stock["has_weekly_and_monthly"]) == (["1", "3"], True)
    assert (crypto["visible_plots_set"], forex["visible_plots_set"]) == ("ohlcv", "ohlc")
    assert (crypto["volume_precision"], crypto["currency_code"]) == (5, "USDT")


async def test_a_search_takes_types_and_exchanges_and_finds_ids(relay_with: StartRelay) -> None:
    client = UdfClient(await relay_with(builtin=(*BUILTIN, StockVenue())))

    async def tickers(typed: str, kind: str = "", exchange: str = "") -> list[str]:
        return [hit["ticker"] for hit in await client.search(typed, kind, exchange)]

    assert (await tickers("btc"))[0] == "binance:BTCUSDT"
    assert (await tickers("gold"))[0] == "twelve_data:XAU/USD"
    assert await tickers("acm", "stock") == ["stock_venue:ACME"]
    assert await tickers("twelve_data:eur/u") == ["twelve_data:EUR/USD"]
    assert {one.partition(":")[0] for one in await tickers("", "", "TWELVE_DATA")} == {"twelve_data"}
    # Refused, which shows as nothing found.
    assert await tickers("a", "bond") == await tickers("a", "", "NYSE") == await tickers("a" * 101) == []


# -- the present -------------------------------------------------------------------------------------------------------


async def test_the_pulse_has_two_bars_from_the_first_one_on_and_costs_one_stream(
    sandbox: Sandbox, relay: Running
) -> None:
    client = UdfClient(relay)
    chart = Chart(client, await client.resolve("BTCUSDT"), "1", sandbox.clock.now)
    told: list[ChartBar] = []
    for _ in range(20):
        told += await chart.pulse()
        await asyncio.sleep(10)
    stream = relay.app[HUB].streams[("binance", StreamKey("BTCUSDT", "1m"))]
    assert stream.status == CONNECTED
    assert sum(call.path == "/api/v3/klines" for call in sandbox.binance.requests) <= 4
    assert sandbox.binance.connections == 1
    # Each candle that closed was told as it is.
    whole = await candles(relay, "BTCUSDT", "1")
    last = {bar.time: bar for bar in told}
    over = closed(list(last.values()), told[-1].time, 60)
    assert len(over) >= 3
    assert all(bar in whole for bar in over)
    # Nobody looks at it any more.
    await asyncio.sleep(400)
    assert relay.app[HUB].streams == {}


def until_saturday() -> float:
    """Return for how long a clock has to be ahead to show Saturday, 12:00 UTC."""
    now = time.time()
    at = datetime.fromtimestamp(now, UTC)
    return float((5 - at.weekday()) % 7 * DAY_S + 12 * 3600 - now % DAY_S)


@pytest.mark.parametrize("counts_back", [True, False])
async def test_at_a_weekend_a_chart_of_currencies_ends_with_friday(relay_with: StartRelay, counts_back: bool) -> None:
    async with Sandbox(offset_s=until_saturday()) as sandbox:
        clock = Clock(wall=sandbox.clock.now)
        relay = await relay_with(sandbox=sandbox, tables={"twelve_data": {"market_hours": "forex"}}, clock=clock)
        client = UdfClient(relay)
        info = await client.resolve("EUR/USD")
        chart = Chart(client, info, "5", sandbox.clock.now, counts_back=counts_back)
        # The relay has only just begun.
        first = await client.bars(info, "5", sandbox.clock.now() - 3000, sandbox.clock.now(), 2)
        friday = [bar.time + 300 for bar in first.bars]
        assert len(friday) == 2
        assert (datetime.fromtimestamp(friday[-1], UTC).weekday(), friday[-1] - friday[0]) == (4, 300)
        assert len(await chart.pulse()) == 1
        await chart.load(100)
        assert len(chart.bars) >= (100 if counts_back else 1)
        assert chart.bars[-1] == first.bars[-1]
        asked = len(sandbox.twelve_data.requests)
        for _ in range(6):
            await asyncio.sleep(10)
            assert [bar.time for bar in await chart.pulse()] == [first.bars[-1].time]
        assert len(sandbox.twelve_data.requests) - asked <= 2


# -- the past ----------------------------------------------------------------------------------------------------------


async def test_a_client_that_asks_for_spans_is_led_over_gaps_and_to_the_beginning(relay_with: StartRelay) -> None:
    venue = StockVenue()
    client = UdfClient(await relay_with(builtin=(*BUILTIN, venue)))
    info = await client.resolve("ACME")
    for resolution in ("60", "1D"):
        chart = Chart(client, info, resolution, time.time, counts_back=False)
        await chart.load(12)
        await chart.scroll_back(12, requests=400)
        assert len(chart.bars) == len(venue.opens(interval_of(resolution))) - sum(
            at > chart.bars[-1].time + (DAY_S if resolution == "1D" else 0)
            for at in venue.opens(interval_of(resolution))
        )
    closed_days = [int(datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()) for day in holidays(venue.today)]
    assert not {bar.time for bar in chart.bars} & {*closed_days}


async def test_how_many_wins_over_from_and_to_is_exclusive(sandbox: Sandbox, relay: Running) -> None:
    client = UdfClient(relay)
    info = await client.resolve("BTCUSDT")
    end = int(sandbox.clock.now()) // 3600 * 3600 - 36_000
    for start in (end - 7200, -5_000_000.25, end + 9999):
        found = await client.bars(info, "60", start, end, 5)
        assert [bar.time for bar in found.bars] == [*range(end - 5 * 3600, end, 3600)]
    found = await client.bars(info, "60", end - 7200, end + 0.5, None)
    assert [bar.time for bar in found.bars] == [end - 7200, end - 3600, end]
    assert (await client.bars(info, "60", -9000, -1000, 300)).no_data
    assert len((await client.bars(info, "60", 0, end, 90_000)).bars) == 5000


async def test_what_a_provider_does_not_give_is_an_error_and_not_the_beginning(
    sandbox: Sandbox, relay: Running
) -> None:
    client = UdfClient(relay)
    info = await client.resolve("BTCUSDT")
    sandbox.binance.faults.answer_rest(503)
    with pytest.raises(ServerRefusal, match="HTTP 503"):
        await client.bars(info, "60", 0, 1_700_000_000, 10)
    answer = await relay.get("/udf/history?symbol=BTCUSDT&resolution=60&to=1700000000&countback=10")
    assert (answer.status, answer.body["s"]) == (503, "error")
    assert int(answer.headers["Retry-After"]) > 0


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("history?symbol=NOPE&resolution=1&to=1700000000&countback=2", 404, "NOPE"),
        ("history?symbol=BTCUSDT&resolution=7&to=1700000000&countback=2", 400, "resolution '7' is not known; use"),
        ("history?symbol=EUR/USD&resolution=1S&to=1700000000&countback=2", 400, "no interval 1s"),
        ("history?symbol=BTCUSDT&resolution=1&countback=2", 400, "to is missing"),
        ("history?symbol=BTCUSDT&resolution=1&to=1700000000", 400, "from is missing"),
        ("history?symbol=BTCUSDT&resolution=1&to=soon&countback=2", 400, "to 'soon' is not a number"),
        ("history?symbol=BTCUSDT&resolution=1&from=2&to=1", 400, "from 2 is after to 1"),
        ("history?symbol=BTCUSDT&resolution=1&to=1700000000000&countback=2", 400, "milliseconds"),
        ("history?symbol=BTCUSDT&resolution=1&to=9&countback=2&currencyCode=EUR", 400, "BTCUSDT is in USDT"),
        ("symbols", 400, "symbol is missing"),
        ("symbols?symbol=%00", 404, "unknown symbol"),
        ("search?query=a&limit=x", 400, "limit 'x'"),
        ("marks?symbol=BTCUSDT", 404, "there is no '/udf/marks'; use one of config"),
    ],
)  # fmt: skip
async def test_errors_say_what_would_be_right(relay: Running, path: str, status: int, said: str) -> None:
    answer = await relay.get(f"/udf/{path}")
    assert (answer.status, answer.body["s"]) == (status, "error")
    assert said in answer.body["errmsg"]


async def test_an_unknown_symbol_is_one_for_the_client(relay: Running) -> None:
    with pytest.raises(UnresolvedSymbol, match="NOPE"):
        await UdfClient(relay).resolve("NOPE")


async def test_only_get_is_taken(relay: Running) -> None:
    answer = await relay.get("/udf/config", method="POST")
    assert (answer.status, answer.body["s"]) == (405, "error")


async def test_a_token_in_the_path_lets_in_and_leaks_nowhere(
    relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    relay = await relay_with(tokens=[TOKEN])
    for base in ("/udf", "/t/wrong/udf"):
        answer = await relay.get(f"{base}/config")
        assert (answer.status, answer.body["s"]) == (401, "error")
        assert "/t/TOKEN/udf" in answer.body["errmsg"]
    client = UdfClient(relay, f"/t/{TOKEN}/udf")
    await client.ready()
    info = await client.resolve("BTCUSDT")
    assert (await client.bars(info, "60", 0, 1_700_000_000, 10)).bars
    said = (await relay.get(f"/t/{TOKEN}/udf/marks")).text + (
        await relay.get(f"/t/{TOKEN}/udf/symbols?symbol=NOPE")
    ).text
    headers = {"Authorization": f"Bearer {TOKEN}"}
    said += (await relay.get("/metrics", headers=headers)).text + (await relay.get("status", headers=headers)).text
    assert TOKEN not in said + caplog.text
    assert 'relay_facade_requests_total{facade="udf",kind="history"} 1' in said


async def test_bars_count_against_the_share_of_a_client(relay_with: StartRelay) -> None:
    relay = await relay_with(max_history_rows_per_minute_per_address=100)
    path = "/udf/history?symbol=BTCUSDT&resolution=60&to=1700000000&countback=300"
    assert len((await relay.get(path)).body["t"]) == 300
    answer = await relay.get(path)
    assert (answer.status, answer.body["s"]) == (429, "error")
    assert int(answer.headers["Retry-After"]) > 0


async def test_pages_of_listed_origins_may_read_answers_and_errors(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=("https://charts.example.org",))
    for path, origin, allowed in [
        ("config", "https://charts.example.org", "https://charts.example.org"),
        ("symbols?symbol=NOPE", "https://charts.example.org", "https://charts.example.org"),
        ("config", "https://other.example.org", None),
    ]:
        answer = await relay.get(f"/udf/{path}", headers={"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        assert (answer.status == 403) == (allowed is None)


async def test_an_answer_from_memory_is_the_same(relay: Running) -> None:
    path = "/udf/history?symbol=BTCUSDT&resolution=60&to=1700000000&countback=300"
    answers: list[Callable[[], Any] | str] = [(await relay.get(path)).text for _ in range(4)]
    assert len({*answers}) == 1


async def test_the_time_is_a_text_of_seconds(relay: Running) -> None:
    answer = await relay.get("/udf/time")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert abs(int(answer.text) - time.time()) < 5
