"""What is known of credits after a restart: reads what an earlier run left, by this machine's own clock; pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_UNDER_WAY_S = 30.0
"""Our choice: a call under way when the relay ended may have been counted by the server as late as this."""


class Remembered(NamedTuple):
    """Credits of calls and how long ago each was answered, and what was spent of each day, by all and on history.

    `spent_day` is the last day of which the server said that it was used up, -1 for none; `held_s` is for how long it
    still asks to be left alone.
    """

    spent: list[tuple[int, float]]
    days: dict[int, int]
    history: dict[int, int]
    spent_day: int
    held_s: float


def remembered(state: Mapping[str, Any], wall: float, window_s: float) -> Remembered:
    """Read the state of an earlier run; of calls only those answered within the window. Raises `ValueError`."""
    try:
        age_s = wall - float(state["at"])
        spent = []
        for count, answered in state["spent"]:
            # Under way when it ended, or by a clock that was set back since: as if answered just now.
            if answered is None:
                ago_s = 0.0 if age_s < window_s + _UNDER_WAY_S else window_s
            else:
                ago_s = max(0.0, wall - float(answered))
            if ago_s < window_s:
                spent.append((int(count), ago_s))
        days = {int(day): int(count) for day, count in state["days"].items()}
        history = {int(day): int(count) for day, count in state["history"].items()}
        # Earlier versions left neither.
        spent_day, held_s = int(state.get("spent_day", -1)), float(state.get("held_s", 0.0)) - max(0.0, age_s)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Remembered(spent, days, history, spent_day, held_s)
