"""What streams forget when their symbol names another instrument than before."""

from relay.protocol import frames
from relay.streams.hub import Hub


def begin_anew(hub: Hub, provider: str, symbol: str, before: int | None) -> None:
    """Let the streams of a symbol forget what they told of the instrument that it named before.

    `before` is the open time from which on candles are of the new one; None: of all that is known only the newest is.
    A candle that was told as open and that nobody will close is told as a gap.
    """
    for stream in hub.of_provider(provider):
        if stream.key.symbol != symbol:
            continue
        gap = stream.series.begin_anew(before)
        for follower in [*stream.followers]:
            follower.begin_anew()
        if stream.series.last is None:
            stream.last_frame = None
        for attachment in stream.attachments:
            kept = {} if before is None else {time: one for time, one in attachment.closed.items() if time >= before}
            attachment.closed = kept
        if gap is not None:
            reason = f"{stream.name} names another instrument now"
            stream.gap_count += 1
            hub.announce(stream, frames.gap(stream.name, stream.key.interval, gap.start, gap.end, reason))
