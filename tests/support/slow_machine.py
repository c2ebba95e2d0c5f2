"""What a machine with too much to do makes a relay say, whatever is tested."""

from collections.abc import Iterable

SAID_BY = frozenset({"relay.supervision.feed", "relay.telemetry.loop_monitor"})
"""The loggers that warn when the process does not run for a while: of a feed that was mute, of a blocked loop."""


def other_lines(log: Iterable[str]) -> list[str]:
    """Return the lines of a process's log that are not about that."""
    return [line for line in log if not any(f" {name}: " in line for name in SAID_BY)]
