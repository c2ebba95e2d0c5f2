"""Tells the service manager that started the relay, if one did, how it is: ready, reloading, stopping, alive."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping


class ServiceManager:
    """The other end of `$NOTIFY_SOCKET`, as systemd's `sd_notify(3)` describes it."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        # An abstract address is written with @ and begins with a zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = 0.0
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            microseconds = environ.get("WATCHDOG_USEC", "")
            self._watchdog_s = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
        self._beating: asyncio.Task[None] | None = None

    def ready(self, status: str) -> None:
        """Say that clients can connect, and from now on that the event loop turns, as often as the watchdog asks."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self._watchdog_s and self._address and self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="watchdog")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is being read again, and afterwards that this is done."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        yield
        self._tell("READY=1")

    async def stopping(self) -> None:
        """Say that the relay is about to end."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            self._beating = None
        self._tell("STOPPING=1")

    async def _beat(self) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 3)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            try:
                line.sendto(message.encode(), self._address)
            except OSError:
                # A manager that does not listen is no reason to stop serving.
                return
