"""Which candles the tables take, and which spans may be said to be known with them; pure."""

from collections.abc import Iterator, Sequence

from relay.core.model import Candle, CandleExtras, extend, is_unreadable, is_widened
from relay.core.spans import Span, gaps_between, merge_spans, span_at
from relay.core.written_numbers import WrittenCandle, repacked

LATEST_TIME = 1 << 60


def storable(candle: Candle) -> Candle | None:
    """Return a candle as the table takes it, or None: a row that it refuses would stop every later one.

    Whether its values make sense is not asked here: they were judged when they arrived.
    """
    # Read here, so that the texts of it are not kept.
    extras = candle.extras
    if type(candle) is WrittenCandle and candle.time < LATEST_TIME:
        return candle  # made of floats and whole numbers
    fit = Candle(candle.time, *map(float, candle[1:]))
    if is_unreadable(fit) or fit.time >= LATEST_TIME:
        return None
    return fit if extras is None or extras.is_empty else extend(fit, _storable_extras(extras))


def _storable_extras(extras: CandleExtras) -> CandleExtras:
    quote_volume, trades, taker_volume, taker_quote_volume, written = repacked(extras)
    volumes = (quote_volume, taker_volume, taker_quote_volume)
    quote_volume, taker_volume, taker_quote_volume = (None if one is None else float(one) for one in volumes)
    return CandleExtras(quote_volume, trades, taker_volume, taker_quote_volume, written)


def storable_parts(
    candles: Sequence[Candle], good: tuple[Candle, ...], span: Span | None
) -> Iterator[tuple[tuple[Candle, ...], Span | None]]:
    """Yield what to write of `candles`, of which `good` can be stored, and of the span that they fill.

    Those that had to be widened stand in for what is not known: their open times are left out of the span.
    """
    if span is not None:
        span = Span(max(span.start, 0), min(span.end, LATEST_TIME))
        if span.end <= span.start:
            span = None
    wide = merge_spans(Span(candle.time, candle.time + 1) for candle in candles if is_widened(candle))
    if wide and span is not None:
        for part in gaps_between(wide, *span):
            yield tuple(candle for candle in good if part.start <= candle.time < part.end), part
        good, span = tuple(candle for candle in good if span_at(wide, candle.time) is not None), None
    if good or span is not None:
        yield good, span
