"""The candle that several candles in a row make: values are added as the decimal numbers that they are; pure."""

from collections.abc import Iterable
from decimal import Decimal

from relay.core.model import Candle, CandleExtras, WidenedCandle, extend, is_widened
from relay.core.written_numbers import WRITTEN_FIELDS

_VOLUME, _QUOTE, _TAKER, _TAKER_QUOTE = (
    WRITTEN_FIELDS.index(name) for name in ("volume", "quote_volume", "taker_volume", "taker_quote_volume")
)
_NOTHING = Decimal(0)


class CandleSum:
    """Candles of one period, added one after the other, oldest first.

    Volumes are added exactly, to 28 digits, and rounded once, to the nearest float. What one candle does not carry is
    not known of their sum. How a provider wrote numbers is not kept: it did not write these.
    """

    __slots__ = ("_close", "_high", "_is_widened", "_low", "_open", "_quote", "_taker", "_taker_quote", "_trades",
                 "_volume", "count", "opened")  # fmt: skip

    def __init__(self, opened: int, candles: Iterable[Candle] = ()) -> None:
        self.opened = opened
        self.count = 0
        self._open = self._high = self._low = self._close = 0.0
        self._volume = _NOTHING
        self._quote: Decimal | None = _NOTHING
        self._taker: Decimal | None = _NOTHING
        self._taker_quote: Decimal | None = _NOTHING
        self._trades: int | None = 0
        self._is_widened = False
        for candle in candles:
            self.add(candle)

    def add(self, candle: Candle) -> None:
        """Add the next candle."""
        _, opened, high, low, close, volume = candle
        if not self.count:
            self._open, self._high, self._low = opened, high, low
        elif high > self._high or low < self._low:
            self._high, self._low = max(high, self._high), min(low, self._low)
        self._close = close
        self.count += 1
        self._is_widened = self._is_widened or is_widened(candle)
        extras = candle.extras
        written = None if extras is None else extras.written
        # Only numbers with more digits than a float holds stand there as texts.
        texts = written.split(",") if written is not None and "," in written else None
        if volume:
            self._volume += _exact(volume, texts, _VOLUME)
        if extras is None:
            self._quote = self._taker = self._taker_quote = self._trades = None
            return
        self._quote = _plus(self._quote, extras.quote_volume, texts, _QUOTE)
        self._taker = _plus(self._taker, extras.taker_volume, texts, _TAKER)
        self._taker_quote = _plus(self._taker_quote, extras.taker_quote_volume, texts, _TAKER_QUOTE)
        trades = self._trades
        self._trades = None if trades is None or extras.trades is None else trades + extras.trades

    def extend(self, later: "CandleSum") -> None:
        """Add all that a later sum has."""
        if not later.count:
            return
        if not self.count:
            self._open, self._high, self._low = later._open, later._high, later._low
        self._high, self._low = max(self._high, later._high), min(self._low, later._low)
        self._close = later._close
        self.count += later.count
        self._is_widened = self._is_widened or later._is_widened
        self._volume += later._volume
        self._quote = _sum(self._quote, later._quote)
        self._taker = _sum(self._taker, later._taker)
        self._taker_quote = _sum(self._taker_quote, later._taker_quote)
        trades = self._trades
        self._trades = None if trades is None or later._trades is None else trades + later._trades

    def with_next(self, candle: Candle) -> "CandleSum":
        """Return the sum with one more candle; this one stays as it is."""
        made = CandleSum(self.opened)
        made.extend(self)
        made.add(candle)
        return made

    def candle(self) -> Candle:
        """Return the candle that they make. Raises `ValueError` when there is none."""
        if not self.count:
            raise ValueError(f"no candle makes up the one of {self.opened}")
        values = self.opened, self._open, self._high, self._low, self._close, float(self._volume)
        if self._is_widened:
            return WidenedCandle(*values)
        quote, taker, taker_quote = map(_number, (self._quote, self._taker, self._taker_quote))
        extras = CandleExtras(quote, self._trades, taker, taker_quote)
        return extend(Candle(*values), None if extras.is_empty else extras)


def _exact(number: float, texts: list[str] | None, place: int) -> Decimal:
    if texts is not None and not texts[place].startswith("."):
        return Decimal(texts[place])
    return Decimal(repr(number))


def _plus(total: Decimal | None, number: float | None, texts: list[str] | None, place: int) -> Decimal | None:
    if total is None or number is None:
        return None
    return total + _exact(number, texts, place) if number else total


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def _number(total: Decimal | None) -> float | None:
    return None if total is None else float(total)
