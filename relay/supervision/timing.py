"""How long a provider's feeds and what they missed are waited for; a test has them waited for less."""

from typing import NamedTuple


class FeedTiming(NamedTuple):
    """Seconds that the parts of a supervisor wait."""

    ready_timeout_s: float = 20.0
    """A feed that is to replace another has to deliver within this."""
    history_patience_s: float = 20.0
    """Live updates wait this long for history that fails; then a gap is told and repaired later."""
    repair_every_s: float = 15.0
    """How often the oldest gaps of each stream are asked for again."""
    recheck_every_s: float = 60.0
    """The shortest time between two questions about candles that closed a while ago."""
    least_ask_pause_s: float = 30.0
    """Once history was asked for a candle that no feed closed, it is not asked again for an interval, at least this."""
    most_ask_pause_s: float = 3600.0
    """But for this at most, however long the interval."""
    halt_silence_s: float = 10.0
    """A stream that its provider's list calls paused has to be silent for so long: prices prove the list wrong."""


FEED_TIMING = FeedTiming()
