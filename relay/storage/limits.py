"""How much the store keeps in memory, and how patient its writer is; a test has both smaller."""

from typing import NamedTuple


class StoreLimits(NamedTuple):
    """Bounds of one store: `max_queued` candles wait while the disk fails, and `most_streams` are known in memory.

    What comes within `batch_s` is written together. What failed is tried again after `least_retry_s`, then twice as
    late each time up to `most_retry_s`, and when the store is closed `close_attempts` times.
    """

    max_queued: int = 200_000
    most_streams: int = 4096
    batch_s: float = 0.25
    least_retry_s: float = 0.5
    most_retry_s: float = 10.0
    close_attempts: int = 5


STORE_LIMITS = StoreLimits()
