"""A run that loses a worker, to the kernel or to a crash, ends at once and fails, whatever its other tests said."""

from typing import Any

import pytest


class LostWorkers:
    """A pytest plugin. xdist is told to put no other worker in its place: with files kept together it waits for ever.

    That is https://github.com/pytest-dev/pytest-xdist/issues/1323. Nobody runs then what the lost worker had not run
    yet, so the exit code is not that of a failed test, which `second_try` would run again alone.
    """

    def __init__(self) -> None:
        self._lost: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Note a worker that ended otherwise than by having run its tests."""
        if error is not None:
            self._lost.append(node.gateway.id)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Say by the exit code that the run was cut short."""
        if self._lost:
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say it in words."""
        if self._lost:
            terminalreporter.write_line(f"{', '.join(self._lost)} died: the run ended, and not all tests were run")
