"""What is wrong with the store now, in words; said in the log when it begins and when all is well again."""

import logging

from relay.core.counted import counted
from relay.storage.write_queue import WriteQueue
from relay.telemetry.events import event

log = logging.getLogger(__name__)


class Problems:
    """Reasons, by what could not be done: to `read` or `write`, or to have a `file` at all, which comes first.

    The log lines say how much of `queue` waits.
    """

    def __init__(self, queue: WriteQueue) -> None:
        self._queue = queue
        self._reasons: dict[str, str] = {}

    @property
    def first(self) -> str | None:
        """What is wrong, in words without a path, or None."""
        return self._reasons.get("file") or next(iter(self._reasons.values()), None)

    def of(self, doing: str) -> str | None:
        """Return why something could not be done the last time, or None."""
        return self._reasons.get(doing)

    def note(self, doing: str, reason: str) -> None:
        """Take down that something could not be done."""
        before = self.first
        self._reasons[doing] = reason
        if self.first != before:
            what = "be used" if doing == "file" else doing
            about = event("store_failed", doing=doing, reason=reason, waiting=self._queue.candles)
            waiting = counted(self._queue.candles, "candle")
            log.error("store cannot %s: %s; %s waiting", what, reason, waiting, extra=about)

    def clear(self, doing: str) -> None:
        """Take down that something was done."""
        if self._reasons.pop(doing, None) is not None and not self._reasons:
            waiting, dropped = self._queue.candles, self._queue.dropped
            about = event("store_recovered", waiting=waiting, dropped=dropped)
            log.warning("store works again; %s waiting, %d dropped", counted(waiting, "candle"), dropped, extra=about)
