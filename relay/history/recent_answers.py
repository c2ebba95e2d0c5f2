"""What providers said last of what is not settled, such as the open candle: believed for a moment, never stored."""

from relay.core.clock import Clock
from relay.core.model import StreamKey
from relay.history.range_walk import RangeWalk
from relay.history.requests import ProviderAnswer
from relay.storage.store import Store

_MOST = 4096


class RecentAnswers:
    """The last answer about the present of each stream, with the age that the symbol's past had then.

    What was said of another instrument is worth nothing.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._of: dict[tuple[str, StreamKey], tuple[int, ProviderAnswer]] = {}

    def adopt(self, request: RangeWalk) -> None:
        """Have a request believe what the provider said last of what is not settled, if that is still fresh."""
        stream = (request.source.name, request.key)
        age, answer = self._of.get(stream, (0, None))
        if answer is None:
            return
        is_old = self._clock.monotonic() - answer.answered_at >= request.source.info.fresh_s
        if is_old or age != self._store.age(request.source.name, request.key.symbol):
            del self._of[stream]
        elif not (answer.reaches_present and any(span.start > answer.span.start for span in request.stored)):
            # A later span would mean that the stream went on since, past the candle that was open then.
            request.adopt(answer)

    def keep(self, stream: tuple[str, StreamKey], age: int, answer: ProviderAnswer) -> None:
        """Keep an answer in the place of the one before."""
        self._of.pop(stream, None)
        self._of[stream] = age, answer
        while len(self._of) > _MOST:
            del self._of[next(iter(self._of))]
