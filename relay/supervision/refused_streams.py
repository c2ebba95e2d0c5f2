"""The streams that one provider refuses, or the relay itself that it refuses: who is tried again, and when."""

import logging
import random
from collections.abc import Callable

from relay.core.backoff import RetryBackoff
from relay.core.clock import Clock
from relay.core.errors import READMIT_S
from relay.core.model import StreamKey
from relay.instruments.listing import Standing
from relay.plugins.provider import Provider
from relay.supervision.refusals import RefusedStream
from relay.supervision.stream_state import SupervisedStream
from relay.telemetry.events import event

log = logging.getLogger(__name__)

MOST_READMIT_S = 900.0
"""A provider that refused the relay itself is asked again after a wait that grows from `READMIT_S` to this."""


class RefusedStreams:
    """Keeps refused streams in the state `error` until they are tried again: `enter` gives one to a feed then.

    `streams` are those that are refused, or were and have not delivered since. `standing` returns what the provider's
    list says of a stream: one that left it is not tried.
    """

    def __init__(
        self,
        provider: Provider,
        clock: Clock,
        rng: random.Random,
        standing: Callable[[StreamKey], Standing],
        enter: Callable[[SupervisedStream], None],
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._rng = rng
        self._standing = standing
        self._enter = enter
        self.streams: dict[StreamKey, tuple[SupervisedStream, RefusedStream]] = {}
        self._readmissions = RetryBackoff(rng, least_s=READMIT_S, most_s=MOST_READMIT_S)
        self._readmit_at: float | None = None

    def refuse(self, supervised: SupervisedStream, reason: str, logged: str = "") -> None:
        """Let a stream that no feed carries any more rest until it is tried again.

        Clients read `reason`; the log says `logged` if that tells more.
        """
        key = supervised.stream.key
        now = self._clock.monotonic()
        if key in self.streams:
            _, refusal = self.streams[key]
        else:
            refusal = RefusedStream(self._rng, supervised.received)
            self.streams[key] = supervised, refusal
        is_news = refusal.note(reason, now)
        if self._provider.refusal is not None:
            # The feed said so in the log, once for all its streams.
            refusal.wait_for_key()
            supervised.refuse(f"{reason}; the next attempt is at {self._clock.utc(self._plan_readmission(now) - now)}")
            return
        if self._standing(key) == "gone":
            when = "the next attempt is when the symbol is listed again"
        else:
            when = f"the next attempt is at {self._clock.utc(refusal.retry_at - now)}"
        supervised.refuse(f"{reason}; {when}")
        if is_news:
            log.warning(
                "%s is in error: %s; %s", key, logged or reason, when, extra=self._about("stream_refused", key, reason)
            )

    def hurry(self, key: StreamKey) -> None:
        """Have one of `streams` tried soon: somebody new wants it."""
        self.streams[key][1].hurry(self._clock.monotonic())

    def forget(self, key: StreamKey) -> None:
        """Forget that a stream was refused: nobody wants it any more."""
        self.streams.pop(key, None)

    def retry_due(self) -> None:
        """Give refused streams whose time has come to a feed again; forget of those that deliver that they were."""
        now = self._clock.monotonic()
        for key, (supervised, refusal) in list(self.streams.items()):
            if supervised.is_refused:
                if now >= refusal.retry_at and self._provider.refusal is None and self._standing(key) != "gone":
                    supervised.retry()
                    self._enter(supervised)
            elif supervised.received > refusal.received:
                del self.streams[key]
                self._readmissions.reset()
                about = self._about("stream_taken", key, refusal.reason)
                log.info("%s is no longer in error: %s", key, refusal.reason, extra=about)

    def _plan_readmission(self, now: float) -> float:
        """Return when a provider that refused the relay itself is asked again."""
        if self._readmit_at is None:
            self._readmit_at = now + self._readmissions.next_s()
        return self._readmit_at

    def check_provider(self, now: float) -> None:
        """Ask a provider that refused the relay itself again when it is time, or when somebody readmitted it."""
        provider = self._provider
        if provider.refusal is not None and not provider.lacks_key and now >= self._plan_readmission(now):
            provider.readmit()
        if provider.refusal is None and self._readmit_at is not None:
            self._readmit_at = None
            for _, refusal in self.streams.values():
                if refusal.waits_for_key:
                    refusal.try_now(now)

    def _about(self, name: str, key: StreamKey, reason: str) -> dict[str, dict[str, object]]:
        return event(name, provider=self._provider.name, stream=str(key), reason=reason)
