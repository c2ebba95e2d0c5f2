"""How long the parts of the provider wait by the machine's clock; a test has them wait less."""

from typing import NamedTuple


class Waits(NamedTuple):
    """Seconds until something is given up, tried again or looked at."""

    answer_s: float = 15.0
    """Our choice: a call that is not answered by then has failed."""
    plan_s: float = 30.0
    """Our choice: the plan of polls is looked at again after so long, whatever it says."""
    look_s: float = 0.25
    """Our choice: how often it is looked whether candles that are built of ticks are over."""
    least_retry_s: float = 1.0
    """Our choice: a tick stream or polls that failed begin anew after this, then twice as late each time."""
    most_retry_s: float = 60.0
    """Our choice: but not later than after this."""
    heartbeat_s: float = 10.0
    """https://twelvedata.com/docs, "WebSocket": about every ten seconds; the provider's own Node client does so."""


WAITS = Waits()
