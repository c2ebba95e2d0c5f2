"""What Twelve Data's credits are spent on, over a day and over restarts; the exchange is the stand-in."""

import contextlib
import re
from collections import Counter

import aiohttp
import orjson
import pytest

from providers.twelve_data.credits import Credits
from providers.twelve_data.forex import hours_of
from providers.twelve_data.polled import SETTLE_S, PolledStream
from providers.twelve_data.schedule import DELAY_S
from providers.twelve_data.turns import Planner
from relay import Candle, Memory, RateLimited, Secret, StreamKey
from tests.bench.week import MONDAY, PLANS, Plan, pairs, simulate, simulate_naive, summary
from tests.support.moments import at
from tests.support.pump import keys
from tests.support.sandbox import TwelveDataStandIn
from tests.support.twelve_data_plugin import EUR, KEY, DrivenFeed, FakeTime, Plugin, asked

FIVE, HOUR, DAY = (StreamKey("EUR/USD", interval) for interval in ("5m", "1h", "1d"))


def calls(exchange: TwelveDataStandIn) -> Counter[tuple[str, str]]:
    return Counter((call.query["symbol"], call.query["interval"]) for call in asked(exchange))


def closed(feed: DrivenFeed, key: StreamKey) -> list[int]:
    return [update.candle.time for update in feed.updates if update.key == key and update.is_closed]


# ---- several intervals of a pair --------------------------------------------------------------------------------


async def test_more_intervals_of_a_pair_cost_one_call_a_poll(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "EUR/USD@5m", "EUR/USD@1h", "EUR/USD@1d")
    await feed.run(3 * 3600)
    made = calls(exchange)
    assert made["EUR/USD", "1min"] > 140
    # At the start, when the first of them closes, and then once an hour.
    assert 3 <= made["EUR/USD", "5min"] <= 5
    assert 3 <= made["EUR/USD", "1h"] <= 4
    assert made["EUR/USD", "1day"] == 1
    assert len(feed.accepted) == 4


async def test_candles_that_are_built_are_those_of_the_provider(plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "EUR/USD@5m", "EUR/USD@1h")
    await feed.run(2.5 * 3600)
    for key, length in ((FIVE, 300), (HOUR, 3600)):
        told = {update.candle.time: update.candle for update in feed.updates if update.key == key and update.is_closed}
        times = closed(feed, key)
        assert times == list(range(at("2026-01-14 12:00"), times[-1] + length, length))
        assert list(told.values()) == await plugin.candles(key.symbol, key.interval, times[0], times[-1] + 1, 100)
    # A minute or two old at most, as the minutes that they are built from.
    news = [update for update in feed.updates if update.key == HOUR and not update.is_closed]
    assert len(news) > 100


async def test_a_provider_that_differs_from_what_was_built_is_believed(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    time.at = at("2026-01-14 18:00:20")
    feed = plugin.feed("EUR/USD@1m", "EUR/USD@5m")
    await feed.run(60)
    theirs = {
        "values": [
            {"datetime": "2026-01-14 18:05:00", "open": "1.5", "high": "1.5", "low": "1.5", "close": "1.5"},
            {"datetime": "2026-01-14 18:00:00", "open": "1.4", "high": "1.6", "low": "1.3", "close": "1.5"},
        ]
    }
    exchange.serve_rows("EUR/USD", "5min", theirs)
    await feed.run(300)
    first = [update for update in feed.updates if update.key == FIVE and update.candle.time == at("2026-01-14 18:00")]
    assert [update.candle.high for update in first if update.is_closed][1:] == [1.6]
    assert "EUR/USD@5m: candles built from smaller ones differ from the provider's" in caplog.text
    before = calls(exchange)["EUR/USD", "5min"]
    await feed.run(3600)
    assert calls(exchange)["EUR/USD", "5min"] - before > 12


async def test_finer_candles_come_first_when_credits_are_short(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("USD/JPY@1h", "GBP/USD@15m", "EUR/USD@1m")
    await feed.run(5)
    assert [call.query["interval"] for call in asked(exchange)] == ["1min", "15min", "1h"]


# ---- sharing ----------------------------------------------------------------------------------------------------


async def test_polls_come_right_after_a_close(exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime) -> None:
    feed = plugin.feed("EUR/USD@1m")
    moments = []
    for _ in range(60):
        made = len(asked(exchange))
        await feed.run(20)
        if len(asked(exchange)) > made:
            moments.append(feed.polled[-1])
    assert {round(moment) % 60 for moment in moments[1:]} == {4}


async def test_a_batch_never_asks_for_more_than_is_left(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    """The exchange refuses a batch whole when it costs more than what is left, and charges for it."""
    exchange.add_symbols(["SEK/NOK", "SEK/DKK", "NOK/DKK"])
    plugin = Plugin(session, [exchange.rest_url], time)
    feed = plugin.feed(*(f"{symbol}@1m" for symbol in list(exchange.market.forex)[:12]))
    for _ in range(12):
        exchange.rest.credits.spend(1)
        with contextlib.suppress(RateLimited):
            await plugin.candles("EUR/USD", "1h", None, int(time.at) - 3600 * len(asked(exchange)), 1)
        await feed.run(300)
    assert max(call.query["symbol"].count(",") + 1 for call in asked(exchange)) > 1
    assert exchange.rest.credits.refusals == 0


async def test_streams_that_are_polled_too_rarely_say_throttled_and_when(plugin: Plugin) -> None:
    names = ("EUR/USD", "GBP/USD", "USD/JPY", "AUD/USD", "USD/CHF", "USD/CAD", "NZD/USD", "EUR/GBP")
    feed = plugin.feed(*(f"{name}@1m" for name in names), "EUR/JPY@1d")
    await feed.run(1200)
    states = {key: (status, message) for key, status, message in feed.paused}
    status, message = states[EUR]
    assert status == "throttled"
    assert re.fullmatch("the credits allow a poll every [89] min; the next poll is at 2026-01-14T12:[0-9:]*Z", message)
    # Nine minutes are nothing to a day.
    assert "allow a poll" not in states[StreamKey("EUR/JPY", "1d")][1]


async def test_the_relay_is_told_when_each_stream_is_polled_next(plugin: Plugin, time: FakeTime) -> None:
    feed = plugin.feed("EUR/USD@1m", "EUR/USD@1h")
    await feed.run(100)
    for key in (EUR, HOUR):
        of_stream = [(in_s, every_s) for told, in_s, every_s in feed.expected if told == key]
        in_s, every_s = of_stream[-1]
        assert 0 < in_s <= 64
        assert every_s == pytest.approx(60, abs=3)


async def test_every_stream_has_its_first_price_soon_after_the_opening(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    """At 17:00 in New York; the day before clocks changed, so that none of these can be built from another."""
    time.at = at("2026-10-30 20:50")
    pairs_of_minutes = ("AUD/USD", "EUR/USD", "GBP/USD", "NZD/USD", "USD/CAD", "USD/CHF", "USD/JPY")
    feed = plugin.feed(*(f"{pair}@1m" for pair in pairs_of_minutes), "EUR/JPY@1d", "GBP/JPY@4h", "EUR/GBP@4h")
    await feed.run(3600)
    time.at = at("2026-11-01 21:59:30")
    await feed.run(10)
    told = await feed.run(170)
    assert {update.key.symbol for update in told} >= {"EUR/JPY", "GBP/JPY", "EUR/GBP", "EUR/USD", "USD/JPY"}


async def test_candles_that_do_not_come_on_a_holiday_are_asked_for_ever_more_rarely(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    exchange.market.hide("EUR/USD", at("2026-01-14 13:00") * 1000, at("2026-01-14 17:00") * 1000)
    feed = plugin.feed("EUR/USD@1m", "EUR/USD@1h", "EUR/USD@4h", "EUR/USD@1d")
    await feed.run(5 * 3600)
    made = calls(exchange)
    # A few when a candle is due, then one an hour: not one each half minute.
    assert sum(made["EUR/USD", name] for name in ("1h", "4h", "1day")) < 30
    await feed.run(1.1 * 3600)
    assert closed(feed, HOUR)[-2:] == [at("2026-01-14 12:00"), at("2026-01-14 17:00")]


async def test_on_a_bank_holiday_one_poll_an_hour_is_left(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    exchange.market.hide("EUR/USD", at("2025-12-24 22:00") * 1000, at("2025-12-25 22:00") * 1000)
    time.at = at("2025-12-24 21:50")
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(1200)
    assert closed(feed, EUR)[-1] == at("2025-12-24 21:59")
    assert feed.paused[-1] == (EUR, "market_closed", "the market is closed; it opens at 2025-12-25T22:00:00Z")
    before = len(asked(exchange))
    await feed.run(5 * 3600)
    assert len(asked(exchange)) - before == 5


async def test_bars_that_come_on_a_bank_holiday_are_told_and_polled_for_as_on_any_day(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    time.at = at("2025-12-24 21:50")
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(2 * 3600 + 1200)
    before = len(asked(exchange))
    told = await feed.run(3600)
    times = closed(feed, EUR)
    # Each minute, over the beginning of the holiday.
    assert times == list(range(at("2025-12-24 21:50"), times[-1] + 60, 60))
    assert len(times) > 180
    assert len(asked(exchange)) - before > 20
    assert told[-1].candle.time > at("2025-12-25 01:05")


async def test_history_keeps_its_part_of_the_day_and_takes_none_of_the_polls(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    exchange.rest.credits.per_day = 200
    exchange.rest.credits.per_minute = 50
    time.at = at("2026-01-14 00:00:20")
    plugin = Plugin(session, [exchange.rest_url], time, credits_per_day=200, credits_per_minute=50)
    feed = plugin.feed("EUR/USD@5m")
    await feed.run(60)
    answered = 0
    end = at("2026-01-14 06:00")
    while True:
        await feed.run(20)
        try:
            await plugin.candles("GBP/USD", "1m", None, end - 60 * answered, 1)
        except RateLimited as error:
            refused = error
            break
        answered += 1
    assert "reserved for live streams" in str(refused)
    assert 0 < refused.retry_after < 3600
    assert 90 <= answered <= 120
    before = len(closed(feed, StreamKey("EUR/USD", "5m")))
    await feed.run(20 * 3600)
    assert exchange.rest.credits.refusals == 0
    assert len(closed(feed, StreamKey("EUR/USD", "5m"))) - before > 230


# ---- the account, also over restarts ----------------------------------------------------------------------------


def kept(disk: list[bytes]) -> Memory:
    async def write(body: bytes) -> bool:
        disk.append(body)
        return True

    return Memory(disk[-1] if disk else None, write)


async def test_a_relay_killed_again_and_again_never_exceeds_the_credits(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    disk: list[bytes] = []
    for _ in range(60):
        plugin = Plugin(session, [exchange.rest_url], time, memory=kept(disk))
        feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m", "USD/CHF@1m")
        await feed.run(7)
    assert exchange.rest.credits.refusals == 0
    assert exchange.rest.credits.largest_in_a_minute == 6
    assert exchange.rest.credits.used_today == sum(
        len(call.query.get("symbol", "").split(",")) for call in exchange.requests
    )
    assert orjson.loads(disk[-1])["days"] == {str(at("2026-01-14") // 86_400): exchange.rest.credits.used_today}


async def test_without_a_memory_the_account_is_asked_first(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    exchange.rest.credits.spend(6)
    exchange.rest.credits.used_today = 700
    plugin = Plugin(session, [exchange.rest_url], time)
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    await feed.run(30)
    assert exchange.requests[0].path == "/api_usage"
    assert exchange.rest.credits.refusals == 0
    assert plugin.provider.relay_budgets(settings=plugin.settings)[1].used >= 700
    await feed.run(600)
    assert exchange.rest.credits.refusals == 0


async def test_a_memory_of_minutes_ago_saves_that_credit_and_one_of_hours_ago_does_not(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    disk: list[bytes] = []
    for pause, expected in ((60, 1), (3600, 2)):
        await Plugin(session, [exchange.rest_url], time, memory=kept(disk)).feed("EUR/USD@1m").run(5)
        time.at += pause
        await Plugin(session, [exchange.rest_url], time, memory=kept(disk)).feed("EUR/USD@1m").run(5)
        assert [call.path for call in exchange.requests].count("/api_usage") == expected
        time.at += 60


async def test_a_memory_that_makes_no_sense_is_as_good_as_none(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time, memory=Memory(b'{"at":"yesterday"}'))
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(5)
    assert exchange.requests[0].path == "/api_usage"
    assert feed.accepted == [EUR]


async def test_a_relay_that_sends_nonsense_again_and_again_fills_no_log(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time)
    plugin.provider.relay_budgets(settings=plugin.settings)

    def said() -> list[int]:
        for number in range(20):
            plugin.provider.relay_memory(Memory(orjson.dumps({"at": "x" * 100_000 + str(number)})))
        return [len(record.getMessage()) for record in caplog.records if "cannot be read" in record.getMessage()]

    assert len(said()) == 1
    time.at += 60
    assert len(lengths := said()) == 2
    assert max(lengths) < 400


async def test_another_program_with_the_same_key_leads_to_no_refusals(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    """It spends three credits at the beginning of each minute; the answers' headers show that."""
    plugin = Plugin(session, [exchange.rest_url], time)
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m", "USD/CHF@1m", "AUD/USD@1m", "NZD/USD@1m")
    for _ in range(60):
        time.at += 60 - time.at % 60
        exchange.rest.credits.spend(3)
        await feed.run(55)
    assert exchange.rest.credits.refusals == 0
    budget = plugin.provider.relay_budgets(settings=plugin.settings)[1]
    assert budget.used >= exchange.rest.credits.used_today - 3 * 15
    assert len(set(feed.accepted)) == 6


async def test_a_plan_that_allows_less_than_configured_is_found_out(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time, credits_per_minute=55, credits_per_day=0)
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m", "USD/CHF@1m", "AUD/USD@1m", "NZD/USD@1m")
    await feed.run(1200)
    assert exchange.rest.credits.refusals == 0
    assert [budget.limit for budget in plugin.provider.relay_budgets(settings=plugin.settings)] == [8, 800]


@pytest.mark.parametrize("interval", ["1m", "5m"])
async def test_streams_without_a_credit_for_minutes_are_throttled_and_told_what_closed_meanwhile(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime, interval: str
) -> None:
    """Six pairs on the free plan; somebody else spends each minute's credits for ten minutes."""
    length = {"1m": 60, "5m": 300}[interval]
    time.at = at("2026-01-14 23:00:20")
    names = [f"{symbol}@{interval}" for symbol in ("EUR/USD", "GBP/USD", "USD/JPY", "USD/CHF", "AUD/USD", "NZD/USD")]
    feed = plugin.feed(*names)
    await feed.run(120)
    spent = b'{"code":429,"message":"You have run out of API credits for the current minute.","status":"error"}'
    exchange.faults.answer_rest(429, spent)
    before, paused, began = len(exchange.requests), len(feed.paused), time.at
    await feed.run(600)
    # Once a minute, to see whether there are credits again.
    assert len(exchange.requests) - before <= 12
    for key in keys(*names):
        of_stream = [(state, text) for other, state, text in feed.paused[paused:] if other == key]
        assert {state for state, _ in of_stream} == {"throttled"}
        assert re.search("; the next poll is at 2026-01-14T23:..:..Z$", of_stream[-1][1])
    accepted = len(feed.accepted)
    exchange.faults.answer_rest_normally()
    await feed.run(300)
    assert set(feed.accepted[accepted:]) == set(keys(*names))
    for key in keys(*names):
        times = closed(feed, key)
        assert times[0] <= began
        assert times == list(range(times[0], times[0] + len(times) * length, length))
        assert times[-1] + 2 * length > time.at - 120


DAY_SPENT = b'{"code": 429, "message": "You have run out of API credits for the day.", "status": "error"}'


@pytest.mark.parametrize("status", [200, 429])
async def test_a_day_that_is_used_up_costs_one_call_though_the_plan_is_said_to_have_no_such_limit(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime, status: int
) -> None:
    time.at = at("2026-01-14 23:00:20")
    plugin = Plugin(session, [exchange.rest_url], time, credits_per_day=0, credits_per_minute=55)
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m")
    exchange.faults.answer_rest(status, DAY_SPENT)
    await feed.run(3000)
    assert len(exchange.requests) == 1
    state, message = feed.paused[-1][1:]
    assert (state, message[:49]) == ("throttled", "the credits of this day are used up; the next pol")
    with pytest.raises(RateLimited) as caught:
        await plugin.candles("EUR/USD", "1h", None, int(time.at), 1)
    assert caught.value.retry_after == pytest.approx(at("2026-01-15 00:00:05") - time.at, abs=120)
    exchange.faults.answer_rest_normally()
    await feed.run(1200)
    assert set(feed.accepted) == {EUR, StreamKey("GBP/USD", "1m")}


@pytest.mark.parametrize("inside", ["for the day", "for the current minute", "just now"])
async def test_a_refusal_inside_a_batch_is_believed(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime, inside: str
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time, credits_per_day=0, credits_per_minute=55)
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m")
    await feed.run(10)
    before = len(exchange.requests)
    spent = {"code": 429, "message": f"You have run out of API credits {inside}.", "status": "error"}
    exchange.faults.answer_rest(200, orjson.dumps({"EUR/USD": spent, "GBP/USD": spent}), times=1)
    while len(exchange.requests) == before:
        await feed.run(5)
    await feed.run(40)
    assert len(exchange.requests) == before + 1
    await feed.run(600)
    assert (len(exchange.requests) == before + 1) is (inside == "for the day")


async def test_a_refusal_without_words_is_repeated_ever_more_rarely(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time)
    feed = plugin.feed("EUR/USD@1m")
    exchange.faults.answer_rest(429, b"<html>slow down</html>")
    await feed.run(3600)
    assert 5 <= len(exchange.requests) <= 8


async def test_the_credits_of_another_key_are_counted_anew_and_those_of_the_same_key_go_on(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time)
    first = plugin.settings

    async def used() -> int:
        await plugin.candles("EUR/USD", "1h", None, int(time.at), 1)
        return plugin.provider.relay_budgets(settings=plugin.settings)[0].used

    assert await used() == 2
    plugin.settings = first | {"poll_seconds": 60, "credits_per_minute": 6}
    # With another plan the provider is asked what it says.
    assert await used() == 4
    assert plugin.provider.relay_budgets(settings=plugin.settings)[0].limit == 6
    exchange.rest.api_key = "another-key-0123456789"
    plugin.settings = first | {"api_key": Secret(exchange.rest.api_key)}
    exchange.rest.credits.used_this_minute = 0
    assert await used() == 2
    assert exchange.requests[-2].path == "/api_usage"


async def test_what_an_earlier_run_spent_with_another_key_does_not_count(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    disk: list[bytes] = []
    await Plugin(session, [exchange.rest_url], time, memory=kept(disk)).feed("EUR/USD@1m").run(5)
    assert KEY.encode() not in disk[-1]
    other = Plugin(session, [exchange.rest_url], time, memory=kept(disk), api_key=Secret("another-key-0123456789"))
    assert other.provider.relay_budgets(settings=other.settings)[1].used == 0
    same = Plugin(session, [exchange.rest_url], time, memory=kept(disk))
    assert same.provider.relay_budgets(settings=same.settings)[1].used == 2


# ---- a simulated day --------------------------------------------------------------------------------------------


def test_a_day_of_one_pair_is_fresh_and_a_naive_relay_is_blind_before_seven() -> None:
    free = PLANS[0]
    planned = summary("planned", *simulate(free, pairs(1), "1m", 1), 1)
    assert (planned.refusals, planned.missing) == (0, 0)
    assert planned.credits <= 800
    assert planned.median_s <= 65
    assert planned.worst_s <= 185
    venue, told = simulate_naive(free, pairs(1), "1m", 1)
    assert venue.first_refusal is not None
    assert (venue.first_refusal - MONDAY) / 3600 < 7
    assert summary("naive", venue, told, 1).worst_s > 17 * 3600


def test_a_day_of_five_pairs_is_shared_equally_without_a_refusal() -> None:
    venue, told = simulate(PLANS[0], pairs(5), "1m", 1)
    assert venue.refusals == 0
    assert venue.largest_minute <= 8
    assert venue.used_today <= 800
    counts = [len(one.polled) for one in told.values()]
    assert max(counts) - min(counts) <= 1
    assert summary("planned", venue, told, 1).missing == 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_last_candles_of_a_friday_close_in_time_although_the_day_is_spent(count: int) -> None:
    friday = MONDAY + 4 * 86_400
    venue, told = simulate(PLANS[0], pairs(count), "1m", 1, friday)
    assert venue.refusals == 0
    found = summary("planned", venue, told, 1, friday)
    assert found.delay_worst_s < 600 * count
    assert {one.closed[-1] for one in told.values()} == {at("2026-01-16 21:59")}


@pytest.mark.parametrize("count", [4, 7])
def test_what_is_kept_for_the_last_candles_of_a_friday_is_not_spent_before(count: int) -> None:
    begin = MONDAY + 4 * 86_400 + 15 * 3600 + 123
    _, told = simulate(Plan("8 a minute, 300 a day", 8, 300), pairs(count), "1m", 8.4 / 24, begin)
    assert {one.closed[-1] for one in told.values()} == {at("2026-01-16 21:59")}


@pytest.mark.parametrize(("friday", "is_built"), [("2026-10-23", True), ("2026-10-30", False)])
def test_after_a_change_of_clocks_the_provider_says_where_long_candles_open(friday: str, is_built: bool) -> None:
    minute, hours = keys("EUR/USD@1m", "EUR/USD@4h")
    streams = {minute: PolledStream(), hours: PolledStream()}
    for stream in streams.values():
        stream.newest, stream.is_closed = Candle(at(f"{friday} 17:00"), 1.0, 1.0, 1.0, 1.0, 0.0), True
        stream.asked, stream.covered = 10.0, 5.0
    limits = Credits(8, 800, wall=lambda: 0.0, monotonic=lambda: 0.0)
    planner = Planner(streams, limits, 30, hours_of)
    assert planner.feeders([minute, hours], 20.0, at(f"{friday} 20:30")) == {hours: minute}
    assert (hours in planner.feeders([minute, hours], 20.0, at(f"{friday} 22:01") + 2 * 86_400)) == is_built


@pytest.mark.parametrize(
    ("asked", "after_s"),
    [
        ("2026-01-14 09:20", DELAY_S),
        ("2026-01-14 10:30", DELAY_S),
        ("2026-01-14 11:30", DELAY_S),
        # No candle followed, as on a holiday: the last one is final after a while.
        ("2026-01-14 12:00:05", SETTLE_S),
    ],
)
def test_a_poll_within_a_candle_of_hours_does_not_cost_it_its_close(asked: str, after_s: float) -> None:
    noon = at("2026-01-14 12:00")
    now = at(asked)
    limits = Credits(8, 800, wall=lambda: now, monotonic=lambda: now)
    limits.correct(420, 8, 800)
    wished = dict.fromkeys([*keys(*(f"{name}@1m" for name in pairs(8))), StreamKey("GBP/JPY", "4h")], 0.0)
    streams = {key: PolledStream() for key in wished}
    for key, stream in streams.items():
        opened = now if key.interval == "1m" else noon - 4 * 3600
        stream.newest = Candle(opened, 1.0, 1.0, 1.0, 1.0, 0.0)
        stream.asked = stream.answered = stream.anchor = now
    turn = Planner(streams, limits, 30, hours_of).turns(wished, {}, now, now)[StreamKey("GBP/JPY", "4h")]
    assert turn.every_s > 4 * 3600
    assert turn.due == noon + after_s


def test_a_busy_hour_of_twenty_pairs_of_a_larger_plan_is_as_fresh_as_the_setting_allows() -> None:
    found = summary("planned", *simulate(PLANS[1], pairs(20), "1m", 1 / 24), 1 / 24)
    assert (found.refusals, found.missing) == (0, 0)
    assert found.worst_s <= 40
    assert found.delay_worst_s <= 6


def test_keys_of_the_bench_are_real_pairs() -> None:
    assert len(set(keys(*(f"{name}@1m" for name in pairs(20))))) == 20
