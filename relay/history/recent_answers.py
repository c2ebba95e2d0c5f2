"""What providers said last of what is not settled, such as the open candle: believed for a moment, never stored."""

from relay.core.clock import Clock
from relay.core.model import StreamKey
from relay.history.range_walk import RangeWalk
from relay.history.requests import ProviderAnswer
from relay.storage.past_seen import PastSeen

_MOST = 4096


class RecentAnswers:
    """The last answer about the present of each stream, with the past that the symbol had when it was asked for.

    What was said of another instrument is worth nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[tuple[str, StreamKey], tuple[PastSeen, ProviderAnswer]] = {}

    def adopt(self, request: RangeWalk) -> None:
        """Have a request believe what the provider said last of what is not settled, if that is still fresh."""
        stream = (request.source.name, request.key)
        if (kept := self._of.get(stream)) is None:
            return
        seen, answer = kept
        is_old = self._clock.monotonic() - answer.answered_at >= request.source.info.fresh_s
        if is_old or not seen.is_same(request.source.name, request.key.symbol):
            del self._of[stream]
        elif not (answer.reaches_present and any(span.start > answer.span.start for span in request.stored)):
            # A later span would mean that the stream went on since, past the candle that was open then.
            request.adopt(answer)

    def keep(self, stream: tuple[str, StreamKey], seen: PastSeen, answer: ProviderAnswer) -> None:
        """Keep an answer in the place of the one before."""
        self._of.pop(stream, None)
        self._of[stream] = seen, answer
        while len(self._of) > _MOST:
            del self._of[next(iter(self._of))]
