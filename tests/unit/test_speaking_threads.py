"""Threads that a plugin starts say whose lines they log, and errors in them are logged."""

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from relay.server.speaking_threads import SpeakingThreads
from relay.server.stray_errors import StrayErrors
from relay.telemetry.events import SPEAKER, Speaker

ACME = Speaker("acme", is_instance=False)


def heard() -> list[Speaker | None]:
    """Return who speaks in a thread, in a timer and in the thread of a pool."""
    found: list[Speaker | None] = []

    def say() -> None:
        found.append(SPEAKER.get())

    for thread in (threading.Thread(target=say), threading.Timer(0, say)):
        thread.start()
        thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(say).result()
    return found


def test_threads_of_a_plugin_speak_for_it_and_others_for_nobody() -> None:
    with SpeakingThreads():
        assert heard() == [None] * 3
        token = SPEAKER.set(ACME)
        try:
            assert heard() == [ACME] * 3
        finally:
            SPEAKER.reset(token)
        assert heard() == [None] * 3


def test_what_python_prints_is_logged_with_the_name_of_the_provider(caplog: pytest.LogCaptureFixture) -> None:
    class Half:
        def __del__(self) -> None:
            raise KeyError("half")

    def fail() -> None:
        raise ValueError("broken")

    before = (threading.excepthook, sys.unraisablehook, warnings.showwarning)
    token = SPEAKER.set(ACME)
    try:
        with StrayErrors(), SpeakingThreads():
            thread = threading.Thread(target=fail, name="its own")
            thread.start()
            thread.join()
            Half()
    finally:
        SPEAKER.reset(token)
    assert (threading.excepthook, sys.unraisablehook, warnings.showwarning) == before
    fields = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert fields == [
        {"event": "thread_failed", "thread": "its own", "provider": "acme"},
        {"event": "error_unraisable", "provider": "acme"},
    ]
