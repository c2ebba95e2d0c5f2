"""What streams forget when their provider changed its past, and what is said of it to their subscribers."""

from relay.core.intervals import length_s
from relay.core.past_change import PastChange
from relay.core.spans import FOREVER, Span
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream, Subscriber

_SHORTEST_MONTH_S = 28 * 86_400


def change_past(hub: Hub, provider: str, change: PastChange) -> dict[Stream, list[Subscriber]]:
    """Let the streams of a symbol forget what its provider changed; return them, each with whom it cannot tell anew.

    The store has to have forgotten it before. Who follows a stream begins anew.
    """
    streams = [
        stream
        for stream in hub.of_provider(provider)
        if stream.key.symbol == change.symbol and _concerns(change, stream)
    ]
    outdated = {stream: _outdate(hub, stream, _span_in(stream, change)) for stream in streams}
    for stream in streams:
        for follower in [*stream.followers]:
            follower.begin_anew()
    return outdated


def _concerns(change: PastChange, stream: Stream) -> bool:
    """Say whether a change is about a stream, or about the candles that it is built of."""
    base = stream.base
    return change.concerns(stream.key.interval) or (base is not None and change.concerns(base.key.interval))


def _span_in(stream: Stream, change: PastChange) -> Span:
    """Return the open times of the candles of a stream that a change is about.

    Those that are built may open later than a part of them: a Sunday may count for the week that follows.
    """
    start, end = change.span(stream.key.interval)
    return Span(start, end if stream.periods is None else min(FOREVER, end + stream.periods.ahead_s))


def _outdate(hub: Hub, stream: Stream, span: Span) -> list[Subscriber]:
    """Let a stream forget the values of the candles that open in a span, and tell its subscribers that they are void.

    Who was told of such candles only by this stream, as far back as it remembers, will be told of them as revised.
    Returns the others, as `set_apart` does.
    """
    series = stream.series
    series.invalidate(span)
    if series.last is None or series.last.time in series.void:
        stream.last_frame = None
    for attachment in stream.attachments:
        attachment.closed = {
            time: candle for time, candle in attachment.closed.items() if not span.start <= time < span.end
        }
        attachment.revised &= attachment.closed.keys()
    told = stream.outdated
    if told is None or span.start < told.start or told.end < span.end:
        stream.outdated = span if told is None else Span(min(told.start, span.start), max(told.end, span.end))
        hub.announce(stream, stream.outdated_frame(stream.outdated))
    if not stream.feeder.has_history:
        return []
    return set_apart(stream, span)


def set_apart(stream: Stream, span: Span) -> list[Subscriber]:
    """Return who has candles that open in a span and that the stream does not remember.

    They need their past anew, and hear of no revision of it before they have it.
    """
    series = stream.series
    remembered = next(iter(series.closed), FOREVER if series.last is None else series.last.time)
    # Before the first that it remembers another one may have opened so long ago at the latest.
    before = remembered - (_SHORTEST_MONTH_S if stream.key.interval == "1M" else length_s(stream.key.interval))
    found: list[Subscriber] = []
    for channel in stream.channels:
        for subscriber, begin in channel.begins.items():
            first = max(begin, span.start)
            if first <= before and first < span.end:
                channel.begins[subscriber] = span.end
                found.append(subscriber)
    return found
