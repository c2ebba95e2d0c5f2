"""Plays recorded candles again as if they happened now, at any speed: `relay serve --replay`."""

from collections.abc import Callable, Mapping

from providers.replay.clock import ReplayClock
from providers.replay.played_stream import Recording
from providers.replay.provider import ReplayProvider
from relay import Instrument


def replayed(
    *,
    recording: Recording,
    instruments: Mapping[str, Mapping[str, Instrument]],
    start: int,
    end: int,
    speed: float,
) -> tuple[list[ReplayProvider], Callable[[], float]]:
    """Return the providers of a recording, which share one clock, and what that says.

    `instruments` are those that are known, by provider and symbol. The clock goes from `start` to `end` (Unix seconds),
    `speed` times as fast as real time.
    """
    clock = ReplayClock(start, end, speed)
    return [ReplayProvider(name, recording, clock, instruments[name]) for name in recording.streams], clock.now


__all__ = ["ReplayClock", "ReplayProvider", "replayed"]
