"""The past of an interval that a provider lacks: what is whole is given, what may lack a part is not, or is said to."""

from typing import Any, NamedTuple

from relay.core.clock import Clock, ProviderClock
from relay.core.derived_intervals import Derivation
from relay.core.model import Budget, Candle, ExtendedCandle, ProviderInfo, StreamKey
from relay.core.periods import Periods
from relay.core.spans import Span, clip_spans
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from relay.history.derived_history import DerivedHistory
from relay.history.live_edge import LiveEdge
from relay.history.requests import HistoryRequest, PastCandles
from relay.storage.revisions import Revisions

START = 1_764_000_000
H = 3600
NOW = START + 102 * H + 1800
KEY, BASE = StreamKey("X", "4h"), StreamKey("X", "1h")
FOUR = Derivation("1h", Periods("4h", "1h", is_utc_grid=True))
FIRST = START // (4 * H) * 4 * H
"""When a candle of four hours opens."""


class Source:
    """A provider as history sees it."""

    name = "venue"
    has_history = True

    def __init__(self, *, has_every_candle: bool = False, is_recorded: bool = False) -> None:
        self.now = float(NOW)
        self.clock = ProviderClock(Clock(lambda: self.now, lambda: self.now))
        self.info = ProviderInfo(
            "venue", 2, "Venue", ("demo",), ("1h",), close_grace_s=5.0, has_every_candle=has_every_candle,
            is_recorded=is_recorded,
        )  # fmt: skip

    def budgets(self) -> tuple[Budget, ...]:
        return ()

    def market(self, symbol: str) -> TradingHours:
        return TradingHours()

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> list[Candle]:
        raise AssertionError("history of short candles is asked, not the provider")


class Said(NamedTuple):
    unreadable: tuple[Span, ...] = ()
    doubted: tuple[Span, ...] = ()


class Past:
    """History of the short candles: `rows`, the last of them open if `is_open`."""

    def __init__(self, rows: list[Candle], *, is_open: bool = False, said: Said | None = None) -> None:
        self.rows = rows
        self.is_open = is_open
        self.said = said or Said()
        self.asked: list[HistoryRequest] = []
        self.most: int | None = None

    async def candles(self, asked: HistoryRequest) -> PastCandles:
        assert asked.key == BASE._replace(interval=asked.key.interval)
        self.asked.append(asked)
        end = NOW if asked.end is None else asked.end
        found = [row for row in self.rows if (asked.start or 0) <= row.time <= end]
        is_cut = self.most is not None and len(found) > self.most
        limit = asked.limit if self.most is None else min(asked.limit, self.most)
        found = found[-limit:] if asked.start is None else found[:limit]
        is_open = self.is_open and bool(found) and found[-1] is self.rows[-1]
        spans = [
            tuple(span for span in spans if span.start <= end and (asked.start or 0) < span.end)
            for spans in (self.said.unreadable, self.said.doubted)
        ]
        is_complete = not is_cut and not spans[0]
        # A provider's candles begin somewhere: what is in doubt before the first one that was found is not said.
        doubted = spans[1] if asked.start is not None or not found else clip_spans(spans[1], found[0].time, end)
        return PastCandles(
            tuple(found), not is_open, is_complete, unreadable=() if is_cut else spans[0], doubted=tuple(doubted)
        )

    async def stored(self, asked: HistoryRequest) -> PastCandles:
        past = await self.candles(asked)
        known = (Span(past.candles[0].time, past.candles[-1].time + 1),) if past.candles else ()
        return past._replace(is_complete=False, known=known)


def hours(first: int, count: int, *, step: int = 1) -> list[Candle]:
    return [Candle(FIRST + H * n, 1.0 + n, 2.0 + n, 0.5 + n, 1.5 + n, 0.1) for n in range(first, first + count, step)]


def history_of(past: Past) -> DerivedHistory:
    return DerivedHistory(past, lambda provider, key: 7, lambda: 0.0)


async def ask(
    past: Past,
    *,
    source: Source | None = None,
    derivation: Derivation = FOUR,
    start: int | None = None,
    end: int | None = None,
    limit: int = 500,
    extended: bool = False,
) -> PastCandles:
    request = HistoryRequest(source or Source(), KEY, start, end, limit, extended=extended)
    return await history_of(past).candles(request, derivation)


def opened(past: PastCandles) -> list[int]:
    return [(candle.time - FIRST) // H for candle in past.candles]


async def test_candles_are_the_sums_of_their_parts() -> None:
    past = await ask(Past(hours(0, 8)))
    assert past.candles == (Candle(FIRST, 1.0, 5.0, 0.5, 4.5, 0.4), Candle(FIRST + 4 * H, 5.0, 9.0, 4.5, 8.5, 0.4))
    assert (past.last_is_closed, past.is_complete) == (True, True)


async def test_the_last_one_is_open_until_its_last_part_or_its_end_is_past() -> None:
    now = (NOW - FIRST) // H
    rows = hours(now // 4 * 4 - 8, 8 + now % 4 + 1)
    assert not (await ask(Past(rows, is_open=True))).last_is_closed
    assert opened(await ask(Past(rows, is_open=True)))[-1] == now // 4 * 4
    # Nothing was traded since; whether anything will be nobody knows before the end.
    source = Source()
    source.now = FIRST + H * (now // 4 * 4 + 4) + 3.0
    assert not (await ask(Past(rows[:-1]), source=source)).last_is_closed
    source.now += 10.0
    assert (await ask(Past(rows[:-1]), source=source)).last_is_closed


async def test_ranges_are_of_the_open_times_of_long_candles() -> None:
    rows = hours(0, 40)
    assert opened(await ask(Past(rows), start=FIRST + 1, end=FIRST + 12 * H)) == [4, 8, 12]
    assert opened(await ask(Past(rows), start=FIRST + 8 * H, limit=2)) == [8, 12]
    assert opened(await ask(Past(rows), end=FIRST + 9 * H, limit=2)) == [4, 8]
    assert opened(await ask(Past(rows), end=FIRST + 8 * H, limit=2)) == [4, 8]


async def test_long_ranges_come_page_by_page_and_are_the_same() -> None:
    rows = hours(-5000, 5040)
    back = await ask(Past(rows), limit=1200)
    forward = await ask(Past(rows), start=back.candles[0].time, limit=1200)
    assert back.candles == forward.candles
    assert len(back.candles) == 1200


async def test_a_venue_that_keeps_few_candles_gives_no_candle_without_its_beginning() -> None:
    rows = hours(-718, 750)
    assert opened(await ask(Past(rows)))[0] == -716
    assert opened(await ask(Past(rows), start=FIRST - 720 * H, limit=3)) == [-716, -712, -708]


async def test_the_first_candle_of_a_young_instrument_is_whole() -> None:
    assert opened(await ask(Past(hours(2, 30))))[0] == 0
    listed = FOUR._replace(listed_at=FIRST - 718 * H)
    assert opened(await ask(Past(hours(-718, 750)), derivation=listed))[0] == -720


async def test_the_first_part_that_is_known_begins_no_candle_while_older_ones_are_in_doubt() -> None:
    # An answer that left out some rows is shorter than asked for, as one is before which there is nothing.
    past = Past(hours(2, 30), said=Said(doubted=(Span(0, FIRST + 2 * H),)))
    found = await ask(past, source=Source(has_every_candle=True))
    assert (opened(found)[0], found.doubted) == (4, (Span(FIRST, FIRST + 4 * H),))
    listed = FOUR._replace(listed_at=FIRST + 2 * H)
    assert opened(await ask(past, source=Source(has_every_candle=True), derivation=listed))[0] == 0
    # Where an hour may be without trades it is given, and who asks is told.
    text = await history_of(past).text(HistoryRequest(Source(), KEY, None, None, 500), FOUR)
    assert (text.chunk.times[0], text.doubted) == (FIRST, (Span(FIRST, FIRST + 4 * H),))


async def test_an_open_candle_lacks_no_part_but_the_newest() -> None:
    now = (NOW - FIRST) // H
    begun = now // 4 * 4
    source = Source(has_every_candle=True)
    source.now = FIRST + now * H + 3.0
    for lacked, is_given in ((begun, False), (now - 1, True)):
        assert begun < now - 1
        rows = [one for one in hours(begun - 8, 8 + now % 4 + 1) if one.time != FIRST + lacked * H]
        said = Said(doubted=(Span(FIRST + lacked * H, FIRST + lacked * H + H),))
        past = await ask(Past(rows, is_open=True, said=said), source=source)
        assert (opened(past)[-1] == begun, past.last_is_closed) == (is_given, not is_given)
        assert bool(past.doubted) is not is_given


async def test_an_older_part_that_is_found_meanwhile_is_not_left_out() -> None:
    past = Past(hours(2, 30))
    ask_for = past.candles

    async def candles(asked: HistoryRequest) -> PastCandles:
        found = await ask_for(asked)
        past.rows = hours(0, 32)
        return found

    past.candles = candles  # type: ignore[method-assign]
    found = await ask(past)
    assert (opened(found)[0], found.doubted) == (4, (Span(FIRST, FIRST + 4 * H),))
    assert opened(await ask(past))[0] == 0


async def test_what_a_recording_lacks_of_its_first_candle_was_traded_all_the_same() -> None:
    source = Source(is_recorded=True)
    assert opened(await ask(Past(hours(2, 30)), source=source))[0] == 4
    assert opened(await ask(Past(hours(2, 30)), source=source, start=FIRST, limit=2)) == [4, 8]
    assert opened(await ask(Past(hours(4, 30)), source=source))[0] == 4
    parts = await history_of(Past(hours(2, 2))).parts(source, KEY, FOUR, FOUR.periods.holding(FIRST))
    assert (parts.is_whole, parts.is_cut) == (False, True)
    parts = await history_of(Past(hours(2, 2))).parts(
        Source(has_every_candle=True), KEY, FOUR, FOUR.periods.holding(FIRST)
    )
    assert not parts.is_cut


async def test_the_last_candle_of_a_recording_is_over_with_its_last_part_or_with_a_later_one() -> None:
    source = Source(is_recorded=True)
    ranges: list[dict[str, Any]] = [{}, {"start": FIRST}, {"end": FIRST + 8 * H}]
    for limits in ranges:
        past = await ask(Past(hours(0, 10)), source=source, **limits)
        assert (opened(past), past.last_is_closed) == ([0, 4, 8], False)
        assert (await ask(Past(hours(0, 12)), source=source, **limits)).last_is_closed
        # Then there was none between, however long.
        past = await ask(Past([*hours(0, 10), *hours(60, 1)]), source=source, end=FIRST + 8 * H)
        assert (opened(past), past.last_is_closed) == ([0, 4, 8], True)
    asked = HistoryRequest(source, KEY, None, None, 500)
    stored = await history_of(Past(hours(0, 10))).stored(asked, FOUR)
    assert (opened(stored), stored.last_is_closed) == ([0, 4], True)


async def test_nothing_was_traded_at_the_beginning_where_older_candles_are_known() -> None:
    rows = [*hours(-8, 3), *hours(2, 30)]
    assert opened(await ask(Past(rows), start=FIRST, limit=2)) == [0, 4]


async def test_a_candle_of_which_a_part_cannot_be_read_cannot_either() -> None:
    rows = [one for one in hours(0, 12) if one.time != FIRST + 5 * H]
    said = Said(unreadable=(Span(FIRST + 5 * H, FIRST + 6 * H),))
    past = await ask(Past(rows, said=said))
    assert (opened(past), past.is_complete, past.is_whole) == ([0, 8], False, True)
    assert past.unreadable == (Span(FIRST + 4 * H, FIRST + 8 * H),)


async def test_where_each_interval_has_a_candle_one_that_lacks_a_part_is_in_doubt() -> None:
    rows = [one for one in hours(0, 12) if one.time != FIRST + 5 * H]
    past = Past(rows, said=Said(doubted=(Span(FIRST + 5 * H, FIRST + 6 * H),)))
    found = await ask(past, source=Source(has_every_candle=True))
    assert (opened(found), found.doubted) == ([0, 8], (Span(FIRST + 4 * H, FIRST + 8 * H),))


async def test_where_none_may_have_been_traded_it_is_given_and_the_answer_says_that_it_is_in_doubt() -> None:
    rows = [one for one in hours(0, 12) if one.time != FIRST + 5 * H]
    past = Past(rows, said=Said(doubted=(Span(FIRST + 5 * H, FIRST + 6 * H),)))
    asked = HistoryRequest(Source(), KEY, None, None, 500)
    found = await history_of(past).candles(asked, FOUR)
    assert (opened(found), found.doubted) == ([0, 4, 8], ())
    text = await history_of(past).text(asked, FOUR)
    assert text.doubted == (Span(FIRST + 4 * H, FIRST + 8 * H),)
    assert not text.is_current()


async def test_what_the_provider_could_not_be_asked_for_is_not_complete() -> None:
    past = Past(hours(0, 40))
    past.most = 10
    back = await ask(past)
    assert (opened(back), back.is_complete, back.is_whole) == ([32, 36], False, False)
    forward = await ask(past, start=FIRST)
    assert (opened(forward), forward.is_whole) == ([0, 4], False)


async def test_all_requests_for_short_candles_share_what_one_request_may_cost() -> None:
    past = Past(hours(-5000, 5040))
    await ask(past, limit=1200)
    assert len(past.asked) > 1
    assert len({id(one.allowance) for one in past.asked}) == 1
    assert past.asked[0].allowance is not None


async def test_extras_are_added_too() -> None:
    rows = [ExtendedCandle(FIRST + H * n, 1, 1, 1, 1, 0.1, quote_volume=0.1, trades=2) for n in range(4)]
    (made,) = (await ask(Past(list(rows)), extended=True)).candles
    assert (made.volume, made.quote_volume, made.trades, made.taker_volume) == (0.4, 0.4, 8, None)


async def test_an_answer_holds_until_the_short_candles_change() -> None:
    past, version, now = Past(hours(0, 40)), [7], [0.0]
    history = DerivedHistory(past, lambda provider, key: version[0], lambda: now[0])
    old = await history.text(HistoryRequest(Source(), KEY, FIRST, FIRST + 8 * H, 500), FOUR)
    new = await history.text(HistoryRequest(Source(), KEY, None, None, 500), FOUR)
    assert (old.is_current(), new.is_current()) == (True, True)
    now[0] = 1.5
    assert (old.is_current(), new.is_current()) == (True, False)
    edge = [True]
    history.edge_of = lambda source, key: LiveEdge(NOW, None, is_current=lambda: edge[0])
    new = await history.text(HistoryRequest(Source(), KEY, None, None, 500), FOUR)
    now[0] = 100.0
    assert new.is_current()
    edge[0] = False
    assert not new.is_current()
    version[0] = 8
    assert not old.is_current()


async def test_what_is_stored_is_given_where_all_parts_are_known() -> None:
    past = Past(hours(1, 30))
    asked = HistoryRequest(Source(), KEY, None, None, 500)
    found = await history_of(past).stored(asked, FOUR)
    assert (opened(found)[0], opened(found)[-1], found.is_complete) == (4, 24, False)
    assert found.known == (Span(FIRST + 4 * H, FIRST + 28 * H),)


async def test_what_is_stored_is_known_up_to_the_end_of_the_last_part() -> None:
    asked = HistoryRequest(Source(), KEY, None, None, 500)
    found = await history_of(Past(hours(0, 32))).stored(asked, FOUR)
    assert opened(found)[-1] == 28
    assert found.known == (Span(FIRST, FIRST + 32 * H),)


async def test_what_is_stored_of_a_range_is_built_of_the_parts_of_that_range() -> None:
    history, begin = history_of(Past(hours(0, 100))), FIRST + 40 * H
    found = await history.stored(HistoryRequest(Source(), KEY, begin, None, 3), FOUR)
    assert (opened(found), found.is_complete) == ([40, 44, 48], False)
    found = await history.stored(HistoryRequest(Source(), KEY, begin, begin + 6 * H, 500), FOUR)
    assert opened(found) == [40, 44]
    found = await history.stored(HistoryRequest(Source(), KEY, None, begin, 3), FOUR)
    assert opened(found) == [32, 36, 40]
    # The last period has parts that are not read.
    history = DerivedHistory(Past(hours(0, 100)), lambda provider, key: 7, lambda: 0.0, most_stored=10)
    found = await history.stored(HistoryRequest(Source(), KEY, begin, None, 500), FOUR)
    assert opened(found) == [40, 44]


async def test_revisions_are_the_candles_of_which_a_part_was_revised() -> None:
    rows = hours(0, 40)
    of_parts = Revisions([rows[5], rows[6], rows[21]], True)
    history = history_of(Past(rows))
    found = await history.revisions(Source(), KEY, FOUR, of_parts, extended=False)
    assert [(one.time - FIRST) // H for one in found.candles] == [4, 20]
    assert found.is_complete
    of_parts = Revisions([rows[5]], False, is_forgotten=True)
    assert (await history.revisions(Source(), KEY, FOUR, of_parts, extended=False)).is_forgotten
    assert found.candles[0] == Candle(FIRST + 4 * H, 5.0, 9.0, 4.5, 8.5, 0.4)


async def test_a_revision_in_the_open_candle_is_none_yet() -> None:
    now = (NOW - FIRST) // H
    rows = hours(now // 4 * 4, now % 4 + 1)
    found = await history_of(Past(rows, is_open=True)).revisions(
        Source(), KEY, FOUR, Revisions([rows[0]], True), extended=False
    )
    assert found.candles == []


async def test_the_parts_of_the_open_candle_are_whole_from_its_beginning_on() -> None:
    now = (NOW - FIRST) // H
    begun = now // 4 * 4
    period = FOUR.periods.holding(FIRST + begun * H)
    rows = hours(begun - 8, 8 + now % 4 + 1)
    parts = await history_of(Past(rows, is_open=True)).parts(Source(), KEY, FOUR, period)
    assert ([one.time for one in parts.closed], parts.forming) == ([one.time for one in rows[8:-1]], rows[-1])
    assert parts.is_whole
    many = hours(begun + 1, 1)
    assert (await history_of(Past(many)).parts(Source(), KEY, FOUR, period)).is_whole, "it is young"
    lacking = Past(rows, is_open=True, said=Said(doubted=(Span(FIRST + begun * H, FIRST + begun * H + H),)))
    assert not (await history_of(lacking).parts(Source(has_every_candle=True), KEY, FOUR, period)).is_whole


async def test_stocks_end_their_last_candle_with_the_session() -> None:
    nyse = TradingCalendar("America/New_York", "0930-1600")
    two = Derivation("30m", Periods("2h", "30m", calendar=nyse))
    day = nyse.day_of(START).sessions[0]
    rows = [Candle(time, 1, 1, 1, 1, 1.0) for time in range(day.opens, day.closes, 1800)]
    asked = HistoryRequest(Source(), StreamKey("X", "2h"), None, None, 500)
    past = await history_of(Past(rows)).candles(asked, two)
    assert [(one.time - day.opens, one.volume) for one in past.candles] == [
        (0, 4.0), (2 * H, 4.0), (4 * H, 4.0), (6 * H, 1.0),
    ]  # fmt: skip
    assert past.last_is_closed


async def test_what_is_traded_before_and_after_the_hours_of_a_day_is_not_in_it_whatever_is_asked() -> None:
    nyse = TradingCalendar("America/New_York", "0930-1600")
    days = Derivation("30m", Periods("1d", "30m", calendar=nyse))
    day = nyse.day_of(START).sessions[0]
    rows = [Candle(time, 1, 1, 1, 1, 1.0) for time in range(day.opens - 8 * H, day.closes + 4 * H, 1800)]
    for start in (None, day.opens - 8 * H, day.opens):
        asked = HistoryRequest(Source(), StreamKey("X", "1d"), start, None, 500)
        past = await history_of(Past(rows)).candles(asked, days)
        assert [(one.time, one.volume) for one in past.candles] == [(day.opens, 13.0)]
        assert past.last_is_closed
    # Of the first half hour nothing was traded: what came before says that no part of the day did.
    quiet = history_of(Past([row for row in rows if row.time != day.opens]))
    past = await quiet.candles(HistoryRequest(Source(), StreamKey("X", "1d"), day.opens, None, 500), days)
    assert [one.volume for one in past.candles] == [12.0]
