"""What a machine with too much to do makes a relay say, whatever is tested."""

SAID_BY = frozenset({"relay.supervision.feed", "relay.telemetry.loop_monitor"})
"""The loggers that warn when the process does not run for a while: of a feed that was mute, of a blocked loop."""
