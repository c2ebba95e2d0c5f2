"""Runs the tests, and those that failed once more: `python -m tests.support.second_try [--strict] [ARGUMENT …]`.

A test that passes at the second try is printed. With `--strict` as the first argument the run fails unless
`unsteady.txt` beside this file names it, or the whole machine stood still while it failed: what depends on luck has to
be mended, not repeated. That list may only become shorter.

Whether the machine stood still is not guessed. This process does nothing but wake up every `BEAT_S` while the tests run
in others; where it was late by `PAUSE_S`, nobody ran as the clock went, and no limit of a test means anything.

That the machine was busy is no excuse: a test whose limits are too tight for half of a processor fails one day on a
whole one. How much of the processors other programs had is printed: whoever mends the test knows then where to look.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

UNSTEADY = Path(__file__).with_name("unsteady.txt")
FAILED = Path(".pytest_cache", "v", "cache", "lastfailed")
MOST_TRIED_AGAIN = 40
BEAT_S = 0.05
PAUSE_S = 0.3
"""Above what waking up takes on a busy machine, at the limits of the tests, which are some tenths of a second."""
NOTES = "SECOND_TRY_NOTES"
"""The environment variable that names the file with when each failure was."""


class Period(NamedTuple):
    """From when to when something lasted, in Unix seconds."""

    start: float
    end: float


class Lucky(NamedTuple):
    """A test that passed only at the second try, and why that may be, empty where nothing excuses it."""

    name: str
    excuse: str


class PauseWatch:
    """Notes when this process, and with it the machine, did not run; a context manager with a thread of its own."""

    def __init__(self) -> None:
        self.pauses: list[Period] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> "PauseWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        before = time.time()
        while not self._is_over.wait(BEAT_S):
            now = time.time()
            if now - before > BEAT_S + PAUSE_S:
                self.pauses.append(Period(before, now))
            before = now


class FailureNotes:
    """A pytest plugin: writes down when each test that failed was run, its fixtures included."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a report of one phase of a test."""
        if report.when == "setup":
            self._begun[report.nodeid] = report.start
        # A worker that crashed has no times.
        if report.failed and report.start:
            note = [report.nodeid, self._begun.get(report.nodeid, report.start), report.stop]
            with self._path.open("a", encoding="utf-8") as notes:
                notes.write(f"{json.dumps(note)}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Take notes where all reports come together."""
    if (path := os.environ.get(NOTES)) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailureNotes(Path(path)))


def busy_s() -> float | None:
    """Return for how long the processors of this machine were busy since it started, added up; None if nobody says."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as file:
            user, nice, system, _, _, *others = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def others_share(busy: float | None, ours_s: float, lasted_s: float, processors: int) -> str:
    """Say how much of the processors other programs had; empty where `busy`, the seconds of all, is not known."""
    if busy is None or lasted_s <= 0:
        return ""
    share = min(1.0, max(0.0, (busy - ours_s) / (lasted_s * processors)))
    return f"; other programs had {share:.0%} of the processors"


def known_unsteady() -> list[str]:
    """Return the tests of the list, as pytest names them without parameters."""
    lines = UNSTEADY.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def judge(
    first: set[str], second: set[str], known: Sequence[str], ran: Mapping[str, Period], pauses: Iterable[Period]
) -> list[Lucky]:
    """Return who passed only at the second try, and what excuses it.

    `first` and `second` failed each time, `ran` is when they were run at the first, and `pauses` when nothing ran.
    """
    lucky = []
    for name in sorted(first - second):
        start, end = ran.get(name, Period(0.0, 0.0))
        longest_s = max(
            (there.end - there.start for there in pauses if there.start < end and start < there.end), default=0
        )
        if name.partition("[")[0] in known:
            excuse = "known"
        else:
            excuse = f"the machine stood still for {longest_s:.1f} s" if longest_s else ""
        lucky.append(Lucky(name, excuse))
    return lucky


def _failed() -> set[str]:
    return set(json.loads(FAILED.read_text(encoding="utf-8"))) if FAILED.is_file() else set()


def _noted(notes: Path) -> dict[str, Period]:
    ran: dict[str, Period] = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else ():
        name, start, end = json.loads(line)
        ran[name] = Period(ran[name].start if name in ran else start, end)
    return ran


def main(arguments: list[str]) -> int:
    """Run the tests with these arguments of pytest, after `--strict`; return the exit code."""
    is_strict = arguments[:1] == ["--strict"]
    arguments = arguments[is_strict:]
    FAILED.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", *arguments]
    with TemporaryDirectory() as folder, PauseWatch() as watch:
        notes = Path(folder, "failures")
        noting = [*pytest, "-p", "tests.support.second_try"]
        began_at, busy_before = time.monotonic(), busy_s()
        code = subprocess.run(noting, check=False, env={**os.environ, NOTES: str(notes)}).returncode
        lasted_s, busy_after, used = time.monotonic() - began_at, busy_s(), resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = _noted(notes)
    first = _failed()
    if code != 1 or len(first) > MOST_TRIED_AGAIN:
        return code
    print(f"\n{len(first)} failed; once more, one after the other", flush=True)
    code = subprocess.run([*pytest, "-n", "0", "--last-failed"], check=False).returncode
    lucky = judge(first, _failed(), known_unsteady(), ran, watch.pauses)
    for name, excuse in lucky:
        print(f"passed only at the second try{f' ({excuse})' if excuse else ''}: {name}")
    is_luck = not all(excuse for _, excuse in lucky)
    if is_luck:
        busy = None if busy_before is None or busy_after is None else busy_after - busy_before
        share = others_share(busy, used.ru_utime + used.ru_stime, lasted_s, os.cpu_count() or 1)
        print(f"not in {UNSTEADY.name}, and the machine did not stand still{share}: mend them")
    return code or int(is_strict and is_luck)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
