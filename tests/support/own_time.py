"""An event loop with a time of its own, for tests whose relay, stand-ins and clients are all in it.

No test waits then, and none depends on how busy the machine is. Databases have no thread, of which the loop would not
know that it works.
"""

import time
from contextlib import ExitStack
from typing import Any, NoReturn

from relay.testing.sped_up_time import SpedUpLoop, SpedUpTime, installed
from tests.support.threadless_database import threadless

BUSY_S = 600.0
"""Longer than anything takes that such a test does at once, however many others want the processor."""


class OwnTimeLoop(SpedUpLoop):
    """Time jumps to what is due next, for the whole process, as long as the loop is not closed."""

    def __init__(self) -> None:
        now = SpedUpTime(time.time(), busy_s=BUSY_S, held_up_s=BUSY_S)
        super().__init__(now)
        self._installed = ExitStack()
        self._installed.enter_context(installed(now))
        self._installed.enter_context(threadless())

    async def subprocess_exec(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to start a program: it would have to be as fast as time jumps, which a busy machine decides."""
        raise RuntimeError("a program does not hear that time jumps; mark the test with `real_time`")

    subprocess_shell = subprocess_exec

    def close(self) -> None:
        """Close the loop; the process has the machine's time again."""
        super().close()
        self._installed.close()
