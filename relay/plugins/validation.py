"""What is wrong with a value that a hook gave, as a sentence for its author, or None; pure, knows no plugin."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from relay.core.intervals import grid_s, is_open_time, open_time
from relay.core.model import (
    EXTRA_FIELDS,
    Budget,
    Candle,
    CandleExtras,
    ExtendedCandle,
    Instrument,
    NativeAnswer,
    NativeLive,
    OpenHours,
    PriceUpdate,
    ProviderInfo,
    StreamKey,
    unreadable,
    widened,
)
from relay.core.packed_extras import MOST_EACH, PackedExtras
from relay.core.past_change import PastChange
from relay.core.session_text import fault_of_session
from relay.core.trading_calendar import TradingCalendar
from relay.core.written_numbers import WrittenCandle, is_readable
from relay.protocol.symbol_names import SPELLING, is_symbol
from relay.upstream.leaps import Leaps
from relay.upstream.watchlist import Watchlist

_POSITIVE = frozenset({"crypto", "forex"})
"""Asset classes of which no price is zero or below."""
NUMBERS = frozenset({int, float})
"""The types of a number; a truth value is none."""
_MOST = {Candle: 20_000, Instrument: 100_000, PastChange: 10_000}
"""How much one answer of a hook may hold: a call asks for 5,000 candles at most, and no venue lists 10,000 symbols."""
_LAST_TIME = 253_402_300_799  # the year 9999
_DAY_MS = 86_400_000
_WIDEST = 2.0**63
_UNEVEN = ("1w", "1M")
"""Weeks do not count from the epoch, and months differ."""
_NO_STEP = 1 << 62
_STEP = re.compile(r"(?=.*[1-9])(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?", re.ASCII)
_LONGEST = {"base": 100, "quote": 100, "name": 200, "volume_unit": 32}
"""Characters of texts that are shown: our own choice, several times what venues have."""
_ONLY_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def kind_of(value: object) -> str:
    """Name the type of a value as a sentence can use it."""
    return "None" if value is None else type(value).__name__


def text_of(error: BaseException) -> str:
    """Return what an error says; that is code of the plugin's as well, and may raise."""
    try:
        return str(error)
    except BaseException as other:  # noqa: BLE001 - a plugin is isolated here
        return f"its text raised {type(other).__name__}"


def shown(error: BaseException) -> str:
    """Return an error and what it says as one line."""
    return " ".join(f"{type(error).__name__}: {text_of(error)}".split())


class CandleValidator:
    """Judges the candles of one provider, once: whatever is behind it trusts them.

    The values are numbers, finite, below 2**63, with low ≤ open, close ≤ high and a volume of 0 or more. Where coins or
    currencies are traded every price is above zero; another asset class may have prices of zero and below. The open
    time lies on the interval's grid. What an `ExtendedCandle` carries beside is None or a finite number of 0 or more,
    the number of trades a whole one. That takers bought no more than all is not asked: venues count in their own ways.
    Where extras are wrong the candle is taken without them, and `bad_extras` says what it was first.
    """

    def __init__(self, info: ProviderInfo) -> None:
        self.bad_extras: str | None = None
        self._floor = 0.0 if _POSITIVE.issuperset(info.asset_classes) else -_WIDEST
        self._is_utc = info.is_utc_grid
        self._is_recorded = info.is_recorded
        self._step = {interval: grid_s(interval, is_utc=info.is_utc_grid) for interval in info.intervals}
        # No multiple of this is an open time, so that what is no whole number of steps is looked at closely.
        self._grid = self._step | dict.fromkeys(_UNEVEN, _NO_STEP)

    def leaps(self, watchlist: Watchlist) -> Leaps | None:
        """Return who judges the prices of one feed by one another, None where that says nothing."""
        if self._floor or self._is_recorded:
            return None
        return Leaps(lambda one: watchlist.skip(f"{one.key}: {_range(one.candle)}, far from the candles around it"))

    def fault_of_update(self, update: object, watchlist: Watchlist) -> str | None:
        """Judge what `relay_stream` yielded. On the way of every update, hence the order: types, stream, values."""
        if not isinstance(update, PriceUpdate):
            return f"relay_stream yielded {kind_of(update)}, not PriceUpdate"
        values: tuple[Any, ...] = update
        key, candle, is_closed, ts_event_ms, is_backfilled, is_revised, is_of_extras = values
        try:
            is_known = key in watchlist.wanted or watchlist.is_late(key)
        except TypeError:
            is_known = False
        if not is_known:
            return f"an update of {str(key)[:60]}, which is not on the watchlist"
        # Sound values of the usual types pass here, without a call; NaN and infinity fail the comparisons.
        kind = type(candle)
        if kind is Candle or kind is WrittenCandle:
            at, opened, high, low, close, volume = candle
            is_sound = (
                type(at) is int
                and type(opened) is float
                and type(high) is float
                and type(low) is float
                and type(close) is float
                and type(volume) is float
                and self._floor < low <= opened <= high < _WIDEST
                and low <= close <= high
                and 0 <= volume < _WIDEST
                and 0 <= at <= _LAST_TIME
                and not at % self._grid[key[1]]
            )
        else:
            is_sound = False
        if not is_sound and (fault := self.fault_of_candle(candle, key[1])) is not None:
            return f"{key}: {fault}"
        if type(is_closed) is not bool:
            return f"{key}: is_closed is {kind_of(is_closed)}, not a bool"
        if is_backfilled is not False or is_revised is not False or is_of_extras is not False:
            return f"{key}: only the relay sets is_backfilled, is_revised and is_of_extras"
        if ts_event_ms is not None:
            if type(ts_event_ms) is not int:
                return f"{key}: ts_event_ms is {kind_of(ts_event_ms)}, not an int"
            if not candle.time * 1000 - _DAY_MS <= ts_event_ms <= _LAST_TIME * 1000:
                return f"{key}: ts_event_ms {ts_event_ms!r:.30} does not fit the candle; it is in UTC milliseconds"
        return None

    def fault_of_candle(self, candle: object, interval: str) -> str | None:
        """Judge one candle and its extras; slower than what lets most updates pass."""
        fault = self._fault_of_candle(candle, interval)
        return fault_of_extras(candle) if fault is None else fault

    def _fault_of_candle(self, candle: object, interval: str) -> str | None:
        if not isinstance(candle, Candle):
            return f"a candle is {kind_of(candle)}, not Candle"
        fault = _fault_in(candle)
        if fault is None and candle.low <= self._floor:
            fault = "a price is not above zero"
        if fault is None and candle.time % self._step[interval]:
            fault = f"{candle.time} is not an open time of {interval}: it is not a multiple of {self._step[interval]} s"
        if fault is None and not is_open_time(interval, candle.time, is_utc=self._is_utc):
            fault = f"{candle.time} is not an open time of {interval}: weeks open on Monday, months on the first"
        return fault

    def repaired(self, update: PriceUpdate, watchlist: Watchlist) -> PriceUpdate | None:
        """Return a faulty update with high and low widened, or without extras, if nothing else is wrong with it."""
        if not isinstance(update, PriceUpdate) or not _holds_numbers(update.candle):
            return None
        update = update._replace(candle=widened(self._without_bad_extras(update.candle)))
        return update if self.fault_of_update(update, watchlist) is None else None

    def _without_bad_extras(self, candle: Candle) -> Candle:
        fault = fault_of_extras(candle)
        if fault is None:
            return candle
        self.bad_extras = self.bad_extras or fault
        return Candle(*candle)

    def past(self, candles: Iterable[Candle], interval: str, latest: float) -> list[Candle]:
        """Return what history gave as it may be believed: a candle that cannot be used is `unreadable`.

        High and low are widened where they are out by little; wrong extras are left out. What opens after `latest` is
        left out, and of a candle that opens at no open time it is not known which one it is: the one in which it lies
        is unreadable.
        """
        found: list[Candle] = []
        spoilt: list[int] = []
        for candle in candles:
            if candle.time > latest or candle.time < 0:
                continue
            if self._fault_of_candle(candle, interval) is None:
                found.append(self._without_bad_extras(candle))
                continue
            wide = widened(candle)
            if self._fault_of_candle(wide, interval) is None:
                found.append(wide)
            else:
                within = open_time(interval, candle.time) if self._is_utc and interval in _UNEVEN else candle.time
                spoilt.append(within - within % self._step[interval])
        if spoilt:
            times = {candle.time for candle in found}
            found = sorted(found + [unreadable(time) for time in {*spoilt} - times])
        return found


def fault_of_extras(candle: object) -> str | None:
    """Say what is wrong with what a candle carries beside prices and volume."""
    if not isinstance(candle, ExtendedCandle) or type(candle) is WrittenCandle:
        return None  # it carries nothing, or what it reads itself
    extras: object = candle.extras
    if type(extras) is not CandleExtras:
        return f"extras are {kind_of(extras)}, not CandleExtras"
    values: tuple[Any, ...] = extras
    for name, value in zip(EXTRA_FIELDS, values, strict=False):
        if value is None:
            continue
        if name == "trades" and type(value) is not int:
            return f"trades is {kind_of(value)}, not an int"
        if type(value) not in NUMBERS:
            return f"{name} is {kind_of(value)}, not a float; convert it with float()"
        if not 0 <= value < _WIDEST:
            return f"{name} is {value!r:.30}, not a finite number of 0 or more"
    if extras.written is not None and (not isinstance(extras.written, str) or not is_readable(candle)):
        return f"written is {extras.written!r:.40}, not how the numbers were written; leave it out"
    return None


def _range(candle: Candle) -> str:
    return f"a price of {candle.close!r}" if candle.low == candle.high else f"{candle.low!r} to {candle.high!r}"


def fault_of_type(candle: object) -> str | None:
    """Say what is wrong with a candle that only a mistake in the plugin explains."""
    if not isinstance(candle, Candle):
        return f"a candle is {kind_of(candle)}, not Candle"
    return None if _holds_numbers(candle) else _wrong_type(candle)


def _holds_numbers(candle: object) -> bool:
    return isinstance(candle, Candle) and type(candle.time) is int and NUMBERS.issuperset(map(type, candle))


def _fault_in(candle: Candle) -> str | None:
    if not _holds_numbers(candle):
        return _wrong_type(candle)
    try:
        fault = candle.fault()
    except OverflowError:
        fault = "a value is too large"
    if fault is not None:
        return fault
    if candle.time > _LAST_TIME:
        return f"time {candle.time!r:.30} is not in Unix seconds"
    if candle.high >= _WIDEST or candle.low <= -_WIDEST or candle.volume >= _WIDEST:
        return "a value is too large: 2**63 and more"
    return None


def _wrong_type(candle: Any) -> str:
    if type(candle.time) is not int:
        return f"time is {kind_of(candle.time)}, not an int"
    name, value = next((name, value) for name, value in candle._asdict().items() if type(value) not in NUMBERS)
    return f"{name} is {kind_of(value)}, not a float; convert it with float()"


def fault_of_instrument(instrument: object, info: ProviderInfo) -> str | None:
    """Judge one entry of `relay_instruments`."""
    if not isinstance(instrument, Instrument):
        return f"an instrument is {kind_of(instrument)}, not Instrument"
    given: Any = instrument
    symbol, intervals = given.symbol, given.intervals
    for name in ("symbol", "asset_class", "base", "quote"):
        if not isinstance(text := getattr(given, name), str):
            return f"{name} is {kind_of(text)}, not a text"
    if not is_symbol(symbol):
        return f"{symbol!r:.80} is not a symbol; it has {SPELLING}"
    if info.symbol_form and not re.fullmatch(info.symbol_form, symbol.upper()):
        return f"{symbol} does not fit symbol_form, {info.symbol_form!r}"
    if given.asset_class not in info.asset_classes:
        return (
            f"{symbol} has the asset class {given.asset_class!r}; relay_provider names {' '.join(info.asset_classes)}"
        )
    if intervals is not None and (
        not isinstance(intervals, tuple) or not intervals or not set(intervals) <= set(info.intervals)
    ):
        return f"{symbol} has the intervals {intervals!r}; give a tuple of intervals that relay_provider names, or None"
    if given.status not in ("trading", "paused"):
        return f"{symbol} has the status {given.status!r}, not 'trading' or 'paused'"
    if len(given.base) > _LONGEST["base"] or len(given.quote) > _LONGEST["quote"]:
        return f"{symbol} has a base or quote of more than {_LONGEST['base']} characters"
    if given[_DETAILS:] == _NO_DETAILS:
        return None
    fault = _fault_of_details(given)
    return None if fault is None else f"{symbol}: {fault}"


_DETAILS = Instrument._fields.index("name")
_NO_DETAILS = (None,) * (len(Instrument._fields) - _DETAILS)


def _fault_of_details(given: Any) -> str | None:
    """Judge what an instrument may leave out."""
    for field in ("name", "volume_unit"):
        text, longest = getattr(given, field), _LONGEST[field]
        if text is not None and not (
            isinstance(text, str) and text.strip() and len(text) <= longest and text.isprintable()
        ):
            return f"{field} is {text!r:.80}; give a text of at most {longest} printable characters, or None"
    for field in ("price_step", "volume_step"):
        step = getattr(given, field)
        if step is not None and not (isinstance(step, str) and _STEP.fullmatch(step)):
            return f"{field} is {step!r:.80}; give a decimal number above zero as a text, such as '0.01', or None"
    if given.session is not None:
        fault = fault_of_session(given.session) if isinstance(given.session, str) else "is not a text"
        if fault is not None:
            return f"session {given.session!r:.80} {fault}" if fault == "is not a text" else f"session {fault}"
    for field in ("listed_at", "expires_at"):
        moment = getattr(given, field)
        if moment is not None and (type(moment) is not int or not -_LAST_TIME <= moment <= _LAST_TIME):
            return f"{field} is {moment!r:.30}; give whole Unix seconds, or None"
    if given.listed_at is not None and given.expires_at is not None and given.expires_at <= given.listed_at:
        return f"expires_at {given.expires_at} is not after listed_at {given.listed_at}"
    return _fault_of_extras(given.extras)


def _fault_of_extras(extras: object) -> str | None:
    if extras is None or isinstance(extras, PackedExtras):
        return None
    if not isinstance(extras, dict):
        return f"extras is {kind_of(extras)}, not a dict"
    try:
        size = len(orjson.dumps(extras, option=_ONLY_JSON))
    except (TypeError, ValueError, RecursionError) as error:
        return f"extras is not JSON: {text_of(error):.80}"
    return f"extras has {size:,} bytes as JSON; at most {MOST_EACH:,} are kept" if size > MOST_EACH else None


def fault_of_budget(budget: Any) -> str | None:
    """Judge one entry of `relay_budgets`."""
    if not isinstance(budget, Budget):
        return f"a budget is {kind_of(budget)}, not Budget"
    if not isinstance(budget.name, str) or type(budget.limit) is not int or type(budget.used) is not int:
        return "name is a text, limit and used are whole numbers"
    if budget.reserved is not None and type(budget.reserved) is not int:
        return "reserved is a whole number, or None where the relay is to divide the budget"
    if type(budget.resets_at) not in NUMBERS or not math.isfinite(budget.resets_at):
        return "resets_at is a moment in Unix seconds"
    return None


def fault_of_hours(hours: Any, moment: int) -> str | None:
    """Judge what `relay_hours` returned for a moment."""
    if isinstance(hours, TradingCalendar):
        return None
    if not isinstance(hours, OpenHours) or set(map(type, hours)) != {int}:
        return f"returned {kind_of(hours)}, not a TradingCalendar, or OpenHours of two whole numbers"
    if not hours.opens < hours.closes or hours.closes <= moment:
        return f"returned hours from {hours.opens} to {hours.closes}, which end before {moment}"
    return None


def fault_of_native(answer: object) -> str | None:
    """Judge what a provider gives as its venue's own answer."""
    if not isinstance(answer, NativeAnswer):
        return f"returned {kind_of(answer)}, not NativeAnswer"
    if type(answer.status) is not int or not 200 <= answer.status < 500:
        return f"returned a status of {answer.status!r:.40}, not 200 to 499"
    if type(answer.body) is not bytes or type(answer.weight) is not int:
        return f"returned {kind_of(answer.body)} and {kind_of(answer.weight)} as body and weight, not bytes and int"
    return None


def fault_of_live(live: object) -> str | None:
    """Judge what a provider gives as the stream that has the answer to a request."""
    if not isinstance(live, NativeLive):
        return f"returned {kind_of(live)}, not NativeLive"
    if not isinstance(live.key, StreamKey) or not callable(live.body) or type(live.weight) is not int:
        return "returned a NativeLive of which key, body or weight is not a StreamKey, a function and an int"
    return None


def list_fault(answer: object, kind: type) -> str | None:
    """Judge the outside of a hook's answer that has to be a list of `kind`."""
    if isinstance(answer, str | bytes | Candle) or not isinstance(answer, Sequence):
        return f"returned {kind_of(answer)}, not a list of {kind.__name__}"
    if len(answer) > _MOST[kind]:
        return f"returned {len(answer):,} entries; a list of {kind.__name__} has at most {_MOST[kind]:,}"
    return None
