"""Numbers of a candle as the provider wrote them: kept in a few bytes, and given back as the same texts; pure.

Eight numbers are kept as one text, joined by commas: open, high, low, close, volume, quote volume, taker volume and
taker quote volume. Each is what was written, `1324882983.36818470`, or only how many decimals it had, `.8`, where that
and the number are enough: the shortest decimal that reads as the number, filled up with zeros. If all eight have the
same number of decimals it stands once. Of 14,122 klines of Binance on record 12,061 are `.8`; in the others one or two
volumes have more digits than a float holds. Behind a semicolon may follow what else the provider wrote, in a form of
its own: `.8;1679661581646`.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from relay.core.decimals import decimal, decimals
from relay.core.model import NO_EXTRAS, Candle, CandleExtras, ExtendedCandle

WRITTEN_FIELDS = (*Candle._fields[1:], "quote_volume", "taker_volume", "taker_quote_volume")
"""Whose texts are kept, in this order."""

_new = tuple.__new__
_MOST = 1 << 63
"""Where numbers end that make sense, and those that SQLite takes."""
_COUNT = re.compile(r"\.[0-9]{1,3}")
_SURE = 16
"""A text of so many characters, one of them a point, has 15 digits at most, and a float holds those."""


def _read(texts: Sequence[str], trades: object, rest: str) -> CandleExtras:
    """Return what texts say; nothing where they are no numbers, or the number of trades is none."""
    if trades is not None and (type(trades) is not int or not 0 <= trades < _MOST):
        return NO_EXTRAS
    try:
        quote_volume, taker_volume, taker_quote_volume = decimals(texts[5:])
    except ValueError:
        return NO_EXTRAS
    if max(quote_volume, taker_volume, taker_quote_volume) >= _MOST:
        return NO_EXTRAS
    written = f"{packed(texts)};{rest}" if rest else packed(texts)
    return _new(CandleExtras, (quote_volume, trades, taker_volume, taker_quote_volume, written))


class WrittenCandle(ExtendedCandle):
    """A candle of texts: what it carries beside prices and volume is read when it is wanted, which is seldom."""

    given: CandleExtras | tuple[Sequence[str], object, str] = NO_EXTRAS
    """The texts, the number of trades and the rest, and in their place what they say once they are read."""
    trade_ids: tuple[int, int] | None = None
    """Of the first and the last trade, as a live message said; not stored."""

    @property
    def extras(self) -> CandleExtras:  # type: ignore[override]  # nobody sets it
        """What the texts say."""
        given = self.given
        if not isinstance(given, CandleExtras):
            # The texts are large, and many closed candles are kept.
            given = self.given = _read(*given)
        return given


def written_candle(
    time: int,
    texts: Sequence[str],
    trades: int | None,
    rest: str = "",
    trade_ids: tuple[int, int] | None = None,
) -> WrittenCandle:
    """Return a candle of eight decimal texts, in the order of `WRITTEN_FIELDS`, which can be had back as they are.

    `time` is the open time in Unix seconds, `trades` the number of trades. `rest` is what else is kept of the message,
    in the provider's own form and without a semicolon. `trade_ids` are the first and the last trade of a live candle.
    Raises `ValueError` where `decimals` does for prices and volume. Where the others are no numbers, or there are not
    three of them, the candle carries none. Whether the prices make a candle is judged later.
    """
    opened, high, low, close, volume = decimals(texts[:5])
    # On the way of every update: what the constructor would do, without its arguments.
    candle = _new(WrittenCandle, (time, opened, high, low, close, volume))
    candle.given = texts, trades, rest
    if trade_ids is not None:
        candle.trade_ids = trade_ids
    return candle


def written_texts(candle: Candle) -> tuple[str, ...] | None:
    """Return the texts that the provider wrote, in the order of `WRITTEN_FIELDS`; None where they are not known."""
    extras = candle.extras
    if extras is None or extras.written is None:
        return None
    numbers = (*candle[1:], extras.quote_volume, extras.taker_volume, extras.taker_quote_volume)
    items = _items(extras.written, len(numbers))
    if len(items) != len(numbers):
        return None
    texts = []
    for item, number in zip(items, numbers, strict=True):
        if not item.startswith("."):
            texts.append(item)
        elif number is None or not _COUNT.fullmatch(item):
            return None
        else:
            texts.append(with_decimals(number, int(item[1:])))
    return tuple(texts)


def written_rest(candle: Candle) -> str:
    """Return what else the provider wrote of a candle, "" for nothing."""
    extras = candle.extras
    return "" if extras is None or extras.written is None else extras.written.partition(";")[2]


def _items(written: str, count: int) -> list[str]:
    items = written.partition(";")[0].split(",")
    return items * count if len(items) == 1 else items


def packed(texts: Sequence[str]) -> str:
    """Return texts of decimal numbers in as few bytes as `written_texts` can read; what is packed already stays."""
    if all([len(text) <= _SURE and text[-9:-8] == "." for text in texts]):
        return ".8"
    items = [_packed(text) for text in texts]
    return items[0] if len({*items}) == 1 and items[0].startswith(".") else ",".join(items)


def repacked(extras: CandleExtras) -> CandleExtras:
    """Return extras whose texts are kept in as few bytes as they can be."""
    written = extras.written
    if written is None or "," not in written or written.startswith("."):
        return extras
    numbers, mark, rest = written.partition(";")
    return extras._replace(written=packed(numbers.split(",")) + mark + rest)


def _packed(text: str) -> str:
    if text.startswith("."):
        return text
    rest = text.partition(".")[2]
    is_sure = len(text) < _SURE + bool(rest)
    return f".{len(rest)}" if is_sure or with_decimals(float(text), len(rest)) == text else text


def with_decimals(number: float, count: int) -> str:
    """Write the shortest decimal that reads as a number, 0 or above, with so many decimals."""
    text = repr(number)
    whole, _, rest = text.partition(".")
    if "e" in rest or "e" in whole or len(rest) > count:
        return f"{Decimal(text):.{count}f}"
    if not count:
        return whole
    return f"{whole}.{rest}{'0' * (count - len(rest))}"


def is_readable(candle: Candle) -> bool:
    """Say whether the texts that are kept of a candle, if there are any, read as its numbers."""
    extras = candle.extras
    if extras is None or extras.written is None:
        return True
    numbers = (*candle[1:], extras.quote_volume, extras.taker_volume, extras.taker_quote_volume)
    items = _items(extras.written, len(numbers))
    return len(items) == len(numbers) and all(map(_reads_as, items, numbers))


def _reads_as(item: str, number: float | None) -> bool:
    if number is None:
        return False
    if not item.startswith("."):
        try:
            return decimal(item) == number
        except ValueError:
            return False
    if not _COUNT.fullmatch(item):
        return False
    count, text = int(item[1:]), repr(number)
    # A number of so few decimals is written as it is.
    is_short = "e" not in text and len(text) - text.find(".") - 1 <= count
    return is_short or float(with_decimals(number, count)) == number
