"""The values that travel through the relay; no behaviour beyond what follows from the value itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

_INFINITE = math.inf
LITTLE = 0.1
"""By this part of the price an open or close may lie outside of high and low, which are widened then.

It is one tick of the cheapest coins, and less than a digit too many or a row in disorder makes.
"""


class Candle(NamedTuple):
    """The prices and the volume of one interval.

    `time` is the open time in Unix seconds (UTC). `open`, `high`, `low` and `close` are prices in the quote currency;
    `volume` is in units of the base, 0 if a market has none.
    """

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0

    def fault(self) -> str | None:
        """Say what is wrong with the values, or None: finite, low ≤ open, close ≤ high, volume ≥ 0, time ≥ 0."""
        time, opened, high, low, close, volume = self
        # On the way of every update, so sound candles leave at once; no comparison holds for NaN.
        if (
            -_INFINITE < low <= opened <= high < _INFINITE
            and low <= close <= high
            and 0 <= volume < _INFINITE
            and time >= 0
        ):
            return None
        if not all(map(math.isfinite, self)):
            return "a value is not a finite number"
        if not low <= opened <= high or not low <= close <= high:
            return "open or close lies outside low and high"
        return "volume or time is negative"

    @property
    def extras(self) -> "CandleExtras | None":
        """What it carries beside these; None for every candle that is no `ExtendedCandle`."""
        return None

    @property
    def quote_volume(self) -> float | None:
        """The volume in units of the quote currency, None where it is not known."""
        return None if self.extras is None else self.extras.quote_volume

    @property
    def trades(self) -> int | None:
        """The number of trades, None where it is not known."""
        return None if self.extras is None else self.extras.trades

    @property
    def taker_volume(self) -> float | None:
        """The part of `volume` that takers bought, None where it is not known."""
        return None if self.extras is None else self.extras.taker_volume

    @property
    def taker_quote_volume(self) -> float | None:
        """The part of `quote_volume` that takers bought, None where it is not known."""
        return None if self.extras is None else self.extras.taker_quote_volume


class CandleExtras(NamedTuple):
    """What a candle carries beside prices and volume; None is what the provider does not give.

    `quote_volume` is in units of the quote currency. `trades` is the number of trades. Of both volumes takers bought
    `taker_volume` and `taker_quote_volume`. `written` is how the provider wrote the numbers, in the form of
    `relay.core.written_numbers`.
    """

    quote_volume: float | None = None
    trades: int | None = None
    taker_volume: float | None = None
    taker_quote_volume: float | None = None
    written: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether none of the four values is known."""
        return self[:4] == _NOTHING


EXTRA_FIELDS = CandleExtras._fields[:4]
"""The names of the four values, as they are on the wire."""
_NOTHING = (None, None, None, None)
NO_EXTRAS = CandleExtras()


class ExtendedCandle(Candle):
    """A candle that carries more: see `CandleExtras`.

    It stands wherever a `Candle` does: it unpacks into the same six values, and equals every candle that has these,
    whatever the extras are. `has_other_extras` compares those. `_replace` and `_make` lose them.
    """

    extras: CandleExtras = NO_EXTRAS
    """Never changed once the candle is made."""

    def __new__(
        cls,
        time: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float = 0.0,
        *,
        quote_volume: float | None = None,
        trades: int | None = None,
        taker_volume: float | None = None,
        taker_quote_volume: float | None = None,
        written: str | None = None,
    ) -> Self:
        """Make one; leave out what the provider does not give.

        `time` is in Unix seconds, `open`, `high`, `low` and `close` are prices in the quote currency. `volume` and
        `taker_volume` are in units of the base, `quote_volume` and `taker_quote_volume` in units of the quote;
        `trades` are counted.
        """
        candle = super().__new__(cls, time, open, high, low, close, volume)
        candle.extras = CandleExtras(quote_volume, trades, taker_volume, taker_quote_volume, written)
        return candle


def extend(candle: Candle, extras: CandleExtras | None) -> Candle:
    """Return a candle that carries these extras, a plain one without any."""
    if extras is None:
        return Candle(*candle)
    found = tuple.__new__(ExtendedCandle, candle)
    found.extras = extras
    return found


def is_bare(candle: Candle) -> bool:
    """Say whether a candle carries none of the values of `CandleExtras`."""
    extras = candle.extras
    return extras is None or extras.is_empty


def has_other_extras(known: Candle, candle: Candle) -> bool:
    """Say whether two candles carry different extras; where one of them carries none nothing differs."""
    one, other = known.extras, candle.extras
    return not (one is None or other is None or one.is_empty or other.is_empty or one[:4] == other[:4])


def repeats(known: Candle | None, candle: Candle) -> bool:
    """Say whether a candle says nothing else than a known one; what one of them does not carry is nothing else."""
    return known == candle and not has_other_extras(known, candle)


def newer_of(known: Candle | None, candle: Candle) -> Candle:
    """Return the newer state of a candle. The extras of the known one stay if its values do and there are no newer."""
    return known if known is not None and known == candle and is_bare(candle) else candle


def parted(candles: Sequence[Candle], last_is_closed: bool) -> tuple[Sequence[Candle], Candle | None]:
    """Return the closed ones of some candles, and the last one if it is open."""
    if last_is_closed or not candles:
        return candles, None
    return candles[:-1], candles[-1]


def unreadable(time: int) -> Candle:
    """Return a candle whose open `time` is known and whose values cannot be used: all prices are NaN.

    A provider's history returns it for an invalid row: the other rows are served, and this open time stays unknown and
    is requested again.
    """
    return Candle(time, math.nan, math.nan, math.nan, math.nan)


def is_unreadable(candle: Candle) -> bool:
    """Say whether a candle has no usable values."""
    return candle.close != candle.close


class WidenedCandle(Candle):
    """A candle of which high and low were moved to hold open and close: nobody knows which of the four was wrong.

    It stands where nothing else is known, and never in place of values that made sense as they came.
    """

    __slots__ = ()


def is_widened(candle: Candle) -> bool:
    """Say whether high and low of a candle were widened to include open and close."""
    return isinstance(candle, WidenedCandle)


def worth(candle: Candle) -> int:
    """Return what a candle is worth beside others of the same time: 0 unreadable, 1 widened, 2 as it came."""
    return 0 if is_unreadable(candle) else 1 if is_widened(candle) else 2


def widened(candle: Candle) -> Candle:
    """Return the candle with high and low widened to hold open and close, where they are out by a tenth at most.

    One that was widened is a `WidenedCandle`; others are returned as they are.
    """
    _, opened, high, low, close, _ = candle
    top, bottom = max(high, opened, close), min(low, opened, close)
    try:
        most = LITTLE * max(abs(opened), abs(close))
        is_little = 0 <= top - high <= most and 0 <= low - bottom <= most and (top, bottom) != (high, low)
    except OverflowError:
        is_little = False
    return WidenedCandle(candle.time, opened, top, bottom, close, candle.volume) if is_little else candle


class StreamKey(NamedTuple):
    """One symbol at one interval within one provider, written `BTCUSDT@1m`."""

    symbol: str
    interval: str

    def __str__(self) -> str:
        return f"{self.symbol}@{self.interval}"


class PriceUpdate(NamedTuple):
    """The newest known state of a stream's candle, open or closed.

    `ts_event_ms` is the provider's time of the update in UTC milliseconds, None where it gives none. Providers leave
    `is_backfilled`, `is_revised` and `is_of_extras` alone: the relay sets them. The last one says that a closed candle
    was revised in nothing but its extras.
    """

    key: StreamKey
    candle: Candle
    is_closed: bool = False
    ts_event_ms: int | None = None
    is_backfilled: bool = False
    is_revised: bool = False
    is_of_extras: bool = False


class Instrument(NamedTuple):
    """What a symbol denotes. `intervals` None means all of the provider's; None elsewhere that it is not known.

    `status` is `trading`, or `paused` while it is not traded; its history is available. `name` is what people call it.
    `price_step` and `volume_step` are the smallest changes of a price and of an amount, as decimal texts such as
    `"0.01"`; the relay drops zeros at their ends. `volume_unit` is what volumes count, if that is not the base:
    `shares`, `contracts`. `session` says when it is traded: `24x7`, or hours and a time zone such as
    `1700-1700 America/New_York`, see `fault_of_session`; without it an instrument of a provider that has no
    `relay_hours` is traded `24x7`. It was listed at `listed_at` and can be traded until `expires_at`, in Unix seconds:
    no candles are expected from then on.
    `extras` are JSON values by name that only programs need which speak a venue's own protocol; up to 16 KiB as JSON.
    """

    symbol: str
    asset_class: str
    base: str
    quote: str
    intervals: tuple[str, ...] | None = None
    status: str = "trading"
    name: str | None = None
    price_step: str | None = None
    volume_step: str | None = None
    volume_unit: str | None = None
    session: str | None = None
    listed_at: int | None = None
    expires_at: int | None = None
    extras: Mapping[str, Any] | None = None


class OpenHours(NamedTuple):
    """A market `opens` and `closes`, both in Unix seconds; `closes` is the first moment at which it is not open."""

    opens: int
    closes: int


class Setting(NamedTuple):
    """One key of a provider's configuration table, or `RELAY_NAME_KEY` in the environment.

    `kind` is one of `text`, `secret`, `urls` and `list` (tuples of texts, comma lists in the environment), `int`,
    `float`, `bool`, `choice` and `table` (a mapping, from the file only). A number is held between `least` and `most`.
    A secret reaches the provider wrapped in `Secret` and shows in no output; `is_secret` is how API 1 says so.
    Relays that share the provider may have other values of it if it changes no candle and `may_differ` says so.
    """

    name: str
    kind: str = "text"
    default: object = None
    help: str = ""
    is_secret: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    environment: tuple[str, ...] = ()
    check: Callable[[object], str | None] | None = None
    may_differ: bool = False


class ProviderInfo(NamedTuple):
    """Who a provider is; only what cannot be derived from the hooks it implements.

    `api` is the number of the API that the plugin is written for, or a pair with the least minor number that it needs.
    `needs_key` names the setting that is required.
    `streams_per_feed` is the maximum number of streams of one upstream connection; with `one_interval_per_feed` streams
    of different intervals never share one. `feed_life_s` is how long the provider lets a connection live (the relay
    replaces it before). The relay asks history for a candle if its interval
    ended `close_grace_s` ago and the feed has not closed it. An answer about the present is valid for `fresh_s`.
    One call for history requests at most `candles_per_call`, and `calls_at_once` of them run at the same time.
    `history_has_open` says that an answer about the present ends with the open candle, if there is one:
    then a closed candle never appears late, and a new subscription need not wait `close_grace_s`.
    With `has_every_candle` each interval in which the market is open has a candle, also without trades: only an outage
    leaves one out, and the relay asks twice before it accepts that.
    With `is_recorded` the past is complete and final: a candle that is not in an answer does not exist, nor one between
    two that a feed gives, and no price waits until another one confirms it.
    With `is_utc_grid` every candle of up to a day opens at a multiple of its length, and longer ones on a day, in UTC:
    weeks on Monday, months on the first.
    A request can include `candles_back` earlier candles at no extra cost: they are compared with the stored ones.
    Candles that a stream closed are compared with history `compare_after_s` after their close, once for each of its
    numbers.
    `candle_extras` names the values of `CandleExtras` that its candles carry. The relay asks again for stored candles
    without any, once somebody wants them.
    A list with fewer than `least_instruments` entries is not complete, and neither is one without most of
    `always_listed`, symbols that the venue always has.
    `symbol_form` is a regular expression that fits all of its symbols in upper case, each as a whole; entries of its
    list that it does not fit are left out. Other names are known not to be its symbols while its list is missing.
    With `always_pinned` its symbols are called `NAME:SYMBOL` only: what they are called alone means something else.
    """

    name: str
    api: int | tuple[int, int]
    title: str
    asset_classes: tuple[str, ...]
    intervals: tuple[str, ...]
    attribution: str = ""
    settings: tuple[Setting, ...] = ()
    needs_key: str = ""
    streams_per_feed: int = 1000
    feed_life_s: float | None = None
    close_grace_s: float = 5.0
    fresh_s: float = 1.0
    instruments_ttl_s: float = 3600.0
    one_interval_per_feed: bool = False
    candles_per_call: int = 5000
    calls_at_once: int = 4
    history_has_open: bool = False
    has_every_candle: bool = False
    is_recorded: bool = False
    is_utc_grid: bool = False
    candles_back: int = 0
    compare_after_s: tuple[float, ...] = (300.0,)
    least_instruments: int = 1
    always_listed: tuple[str, ...] = ()
    candle_extras: tuple[str, ...] = ()
    symbol_form: str = ""
    always_pinned: bool = False


class NativeAnswer(NamedTuple):
    """A venue's own answer to a request in its own protocol: HTTP's `status`, and the `body` as it came.

    `weight` is what the request cost, in the units of the provider's first budget.
    """

    status: int
    body: bytes
    weight: int = 0


class NativeUpdate(NamedTuple):
    """What a venue's own stream said last under `key`, with its `content` in whatever form the provider reads it."""

    key: StreamKey
    content: Any


class NativeLive(NamedTuple):
    """The stream of a venue, by its `key`, that says all the time what a request would be answered.

    `body` makes the venue's own answer of the newest content of that stream; pure. `weight` is what the request would
    cost, in the units of the provider's first budget.
    """

    key: StreamKey
    body: Callable[[Any], bytes]
    weight: int = 0


class Budget(NamedTuple):
    """A limit that the provider sets: `used` of `limit` units, back to 0 at `resets_at` (Unix seconds).

    The provider reserves `reserved` of the remaining units for history; None: it does not divide them, and the relay
    reserves a part for live streams.
    """

    name: str
    limit: int
    used: int
    resets_at: float
    reserved: int | None = None
