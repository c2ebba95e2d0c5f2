"""What Python prints beside the log: errors of threads, errors without a caller, and warnings.

Secrets are taken out of log lines, and programs read those line by line; what is printed has neither.
"""

import logging
import sys
import threading
from types import TracebackType
from typing import Any, Self

from relay.telemetry.events import SPEAKER, event

log = logging.getLogger(__name__)


class StrayErrors:
    """Has all of it logged while it is entered, and printed again afterwards; with the provider, if a plugin did it."""

    def __enter__(self) -> Self:
        self._before = (threading.excepthook, sys.unraisablehook)
        threading.excepthook, sys.unraisablehook = _log_of_thread, _log_unraisable
        logging.captureWarnings(True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        threading.excepthook, sys.unraisablehook = self._before
        logging.captureWarnings(False)


def _log_of_thread(failed: threading.ExceptHookArgs) -> None:
    # As Python does: a thread may end itself so.
    if failed.exc_type is SystemExit or failed.exc_value is None:
        return
    name = "" if failed.thread is None else failed.thread.name
    about = event("thread_failed", thread=name, **_speaker())
    log.error("the thread %s ended by an error", name, exc_info=failed.exc_value, extra=about)


def _log_unraisable(failed: Any) -> None:
    # Its own text may be of an object that is half gone.
    about = event("error_unraisable", **_speaker())
    log.error("%s", failed.err_msg or "an error that has no caller", exc_info=failed.exc_value, extra=about)


def _speaker() -> dict[str, object]:
    speaker = SPEAKER.get()
    return {} if speaker is None else {"provider": speaker.provider}
