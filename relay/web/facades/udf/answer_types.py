"""What the routes for charts answer, as types: the OpenAPI document describes them, and tests hold answers to them.

In `Annotated`, a text is the description of a field and a dict is more of its JSON Schema.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

Times = Annotated[list[int], "Unix seconds, ascending; of bars of a day and more 0:00 UTC of their first day."]


class ExchangeChoice(TypedDict):
    """A provider whose instruments can be searched for; an empty `value` is all."""

    value: str
    name: str
    desc: str


class TypeChoice(TypedDict):
    """A type of instruments that can be searched for; an empty `value` is all."""

    value: str
    name: str


class UdfConfig(TypedDict):
    """What the server can do."""

    supports_search: bool
    supports_group_request: bool
    supports_marks: bool
    supports_timescale_marks: bool
    supports_time: bool
    supported_resolutions: list[str]
    exchanges: list[ExchangeChoice]
    symbols_types: list[TypeChoice]


class FoundSymbol(TypedDict):
    """A hit of a search."""

    symbol: str
    full_name: Annotated[str, "With the exchange in front."]
    description: str
    exchange: str
    ticker: Annotated[str, "By which the symbol is asked for: `provider:SYMBOL`."]
    type: str


class ChartSymbol(TypedDict):
    """What a chart has to know of an instrument. A price is a multiple of `minmov / pricescale`."""

    name: str
    ticker: Annotated[str, "By which bars are asked for: `provider:SYMBOL`."]
    description: str
    type: Annotated[str, {"examples": ["crypto", "forex", "stock", "futures"]}]
    exchange: str
    listed_exchange: str
    session: Annotated[str, "`24x7`, or hours in `timezone`, such as `0930-1600` or `1700-1700`."]
    timezone: str
    minmov: Annotated[int, {"minimum": 1}]
    pricescale: Annotated[int, {"minimum": 1}]
    format: Literal["price"]
    has_seconds: bool
    seconds_multipliers: list[str]
    has_intraday: bool
    intraday_multipliers: list[str]
    has_daily: bool
    daily_multipliers: list[str]
    has_weekly_and_monthly: bool
    weekly_multipliers: list[str]
    monthly_multipliers: list[str]
    supported_resolutions: list[str]
    volume_precision: Annotated[int, {"minimum": 0}]
    visible_plots_set: Annotated[Literal["ohlcv", "ohlc"], "`ohlc` where a market has no volume."]
    data_status: Literal["streaming"]
    currency_code: NotRequired[str]
    original_currency_code: NotRequired[str]
    expiration_date: NotRequired[Annotated[int, "The end of trading, in Unix seconds."]]
    expired: NotRequired[bool]


class BarColumns(TypedDict):
    """Bars, a list for each column."""

    s: Literal["ok"]
    t: Times
    o: list[float]
    h: list[float]
    l: list[float]  # noqa: E741  the protocol calls it so
    c: list[float]
    v: list[float]


class NoBars(TypedDict):
    """There is nothing: without `nextTime` also nothing earlier, so that nobody needs to ask again."""

    s: Literal["no_data"]
    nextTime: NotRequired[Annotated[int, "The last bar before those that were asked for, in Unix milliseconds."]]


class QuoteValues(TypedDict, total=False):
    """What an instrument costs; `ch` and `chp` (percent) are the change since the day before, if there was one."""

    lp: float
    ch: float
    chp: float
    open_price: float
    high_price: float
    low_price: float
    prev_close_price: float
    volume: float
    short_name: str
    exchange: str
    description: str


class QuoteOfSymbol(TypedDict):
    """A quote, or why there is none, under the name that it was asked for by."""

    s: Literal["ok", "error"]
    n: str
    v: QuoteValues
    errmsg: NotRequired[str]


class UdfQuotes(TypedDict):
    """Quotes, in the order of the symbols."""

    s: Literal["ok"]
    d: list[QuoteOfSymbol]


class GridRow(TypedDict):
    """A row of a watch list: a price, and its change since the day before; null where it is not known."""

    symbol: str
    price: float | None
    change: float | None
    change_percent: Annotated[float | None, "A part of the price: 0.01 is one percent."]
    volume: float | None
    error: NotRequired[Annotated[str, "Why there is no price."]]


class ChartError(TypedDict):
    """Why there is no answer."""

    s: Literal["error"]
    errmsg: Annotated[str, "What is wrong, and what would be right."]
