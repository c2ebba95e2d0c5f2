"""One stream that an application follows: its names, how far it got, and when the relay is to be asked again."""

import math

from relay.client.parsing import folded
from relay.client.resume import Progress, StreamOptions
from relay.core.model import StreamKey


class FollowedStream:
    """One stream that is followed: how it was asked for, on this connection too, and when to ask again."""

    def __init__(self, asked: StreamKey, options: StreamOptions) -> None:
        self.asked = asked
        self.key: StreamKey | None = None
        self.asked_by = {asked}
        self.progress = Progress(asked.interval, options)
        self.failures = 0
        # When the relay is to be asked for it, or to end it once it was left; infinity once that was done.
        self.ask_at = 0.0
        # When the relay is to be asked for what is missing still of gaps that it told of.
        self.repair_at = math.inf
        self.repairs = 0
        # On this connection. A stream is renewed by leaving it and asking for it anew, since of a subscription that
        # goes on the relay sends nothing again.
        self.is_asked = False
        self.asked_id = 0
        self.awaits_snapshot = False
        self.is_repairing = False
        self.must_leave = False
        self.is_renewing = False

    @property
    def name(self) -> StreamKey:
        return self.key or self.asked

    @property
    def spellings(self) -> set[StreamKey]:
        """Every name it goes by, folded: those it was asked for by, and the canonical one."""
        return self.asked_by if self.key is None else {*self.asked_by, folded(self.key)}

    @property
    def is_pinned(self) -> bool:
        """Say whether it is asked for by a name with a provider."""
        return ":" in self.asked.symbol
