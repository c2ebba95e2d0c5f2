"""How the facade for charts names intervals, writes steps, dates bars, and reads requests."""

from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from relay.core.errors import RequestError
from relay.core.intervals import INTERVALS
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.trading_calendar import TradingCalendar
from relay.plugins.provider import Provider
from relay.protocol.frames import text_of
from relay.web.facades.udf.bars import bar_times
from relay.web.facades.udf.bars_query import read_bars_query
from relay.web.facades.udf.live_rows import RowForm
from relay.web.facades.udf.resolutions import RESOLUTIONS, interval_of, multipliers, resolution_of
from relay.web.facades.udf.symbol_info import price_scale

DAY_S = 86_400


def test_resolutions_are_what_charts_call_intervals() -> None:
    assert {name: resolution_of(name) for name in INTERVALS} == {
        "1s": "1S", "1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120", "4h": "240",
        "6h": "360", "8h": "480", "12h": "720", "1d": "1D", "3d": "3D", "1w": "1W", "1M": "1M",
    }  # fmt: skip
    assert all(interval_of(resolution) == name for resolution, name in RESOLUTIONS.items())
    assert [interval_of(short) for short in ("S", "D", "W", "M")] == ["1s", "1d", "1w", "1M"]
    for wrong in ("", "7", "1m", "1d", "60S", "1H", "d"):
        with pytest.raises(RequestError, match="use one of 1S 1 3 5"):
            interval_of(wrong)


def test_multipliers_count_units() -> None:
    names = ["1s", "5m", "4h", "1d", "3d", "1w", "1M"]
    assert [multipliers(names, units) for units in ("s", "mh", "d", "w", "M")] == [
        ["1"], ["5", "240"], ["1", "3"], ["1"], ["1"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "minmov", "pricescale"),
    [("0.01", 1, 100), ("0.25", 25, 100), ("0.5", 5, 10), ("1", 1, 1), ("5", 5, 1), ("0.00000001", 1, 10**8)],
)
def test_a_price_is_a_multiple_of_its_step(step: str, minmov: int, pricescale: int) -> None:
    assert price_scale(step) == (minmov, pricescale)


# -- dates -------------------------------------------------------------------------------------------------------------


class Hours:
    """A provider, as far as it has a calendar."""

    def __init__(self, calendar: TradingCalendar | None) -> None:
        self.hours = self
        self._calendar = calendar

    def calendar(self, symbol: str) -> TradingCalendar | None:
        return self._calendar


def dated(calendar: TradingCalendar | None, interval: str, moment: str) -> str:
    """Return the time of a bar whose candle opened then, both in UTC."""
    opened = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    bar_time = bar_times(cast(Provider, Hours(calendar)), StreamKey("X", interval))
    time = opened if bar_time is None else bar_time(opened)
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


NEW_YORK = TradingCalendar("America/New_York", "0930-1600", holidays=["2026-01-19"])
TOKYO = TradingCalendar("Asia/Tokyo", "0900-1130,1230-1530")
CURRENCIES = TradingCalendar("America/New_York", "1700-1700")


@pytest.mark.parametrize(
    ("calendar", "interval", "opened", "time"),
    [
        (NEW_YORK, "1d", "2026-07-01 04:00", "2026-07-01 00:00"),
        (NEW_YORK, "1d", "2026-01-20 05:00", "2026-01-20 00:00"),
        # A day of which the calendar knows nothing keeps its own date, and so does not meet the next one's.
        (NEW_YORK, "1d", "2026-01-19 05:00", "2026-01-19 00:00"),
        # Of weeks and months it is the first day of trading.
        (NEW_YORK, "1w", "2026-01-19 05:00", "2026-01-20 00:00"),
        (NEW_YORK, "1M", "2026-08-01 04:00", "2026-08-03 00:00"),
        (TOKYO, "1d", "2026-01-18 15:00", "2026-01-19 00:00"),
        (CURRENCIES, "1d", "2026-01-18 22:00", "2026-01-19 00:00"),
        (CURRENCIES, "1d", "2026-01-19 00:00", "2026-01-19 00:00"),
        (CURRENCIES, "4h", "2026-01-18 22:00", "2026-01-18 22:00"),
        (TradingCalendar("UTC", "24x7"), "1d", "2026-01-18 16:00", "2026-01-18 16:00"),
        (None, "1d", "2026-01-18 22:00", "2026-01-18 22:00"),
    ],
)
def test_bars_of_days_have_dates(calendar: TradingCalendar | None, interval: str, opened: str, time: str) -> None:
    assert dated(calendar, interval, opened) == time


# -- rows --------------------------------------------------------------------------------------------------------------


def row_after(form: RowForm, time: int, close: float) -> Any:
    update = PriceUpdate(StreamKey("X", "1d"), Candle(time, 9.0, 99.0, 1.0, close, 5.0))
    frame = form.frame(update, 0)
    return None if frame is None else orjson.loads(text_of(frame))


def test_a_row_changes_since_the_day_before_also_when_a_day_begins() -> None:
    form = RowForm("X")
    form.begin(Candle(DAY_S, 9.0, 99.0, 1.0, 44.0), 40.0)
    assert row_after(form, DAY_S, 50.0) == {
        "symbol": "X", "price": 50.0, "change": 10.0, "change_percent": 0.25, "volume": 5.0,
    }  # fmt: skip
    # After a weekend: it is the day before that was traded.
    assert row_after(form, 4 * DAY_S, 45.0)["change"] == -5.0
    assert row_after(form, 4 * DAY_S, 40.0)["change_percent"] == -0.2
    # What comes late, or is had anew by another client, takes nothing back.
    assert row_after(form, DAY_S, 1.0) is None
    form.begin(Candle(DAY_S, 9.0, 99.0, 1.0, 44.0), 40.0)
    assert row_after(form, 4 * DAY_S, 60.0)["change"] == 10.0


def test_the_first_day_has_no_change() -> None:
    form = RowForm("X")
    form.begin(Candle(DAY_S, 9.0, 99.0, 1.0, 44.0), None)
    row = row_after(form, DAY_S, 50.0)
    assert (row["price"], row["change"], row["change_percent"]) == (50.0, None, None)


# -- requests ----------------------------------------------------------------------------------------------------------


def asked(**query: str) -> tuple[int | None, int, int]:
    found = read_bars_query(
        MultiDict({"symbol": "x:A", "resolution": "60", **{k.rstrip("_"): query[k] for k in query}})
    )
    return found.start, found.end, found.most


def test_countback_wins_over_from() -> None:
    assert asked(from_="7", to="36000", countback="2") == (None, 36_000, 2)
    assert asked(to="36000", countback="99999") == (None, 36_000, 5000)
    # What versions send that want a span.
    assert asked(from_="0", to="36000", countback="0") == asked(from_="0", to="36000", countback="") == (0, 36_000, 11)


def test_times_may_have_fractions_and_be_negative() -> None:
    assert asked(from_="-7200.75", to="0.25") == (-7200, 1, 4)


@given(st.text(max_size=30))
def test_nothing_but_a_refusal_comes_of_other_texts(text: str) -> None:
    for name in ("symbol", "resolution", "from_", "to", "countback"):
        query = {"from_": "0", "to": "9", name: text}
        try:
            start, end, most = asked(**query)
        except RequestError:
            continue
        assert start is None or start <= end
        assert 1 <= most <= 5000
