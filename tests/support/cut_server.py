"""A server of plain connections on loopback, all of which can be cut, and what a proxy needs to pass them on."""

import asyncio
import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from typing import Self


class CutServer(ABC):
    """Accepts connections on a free port; `cut` ends all that are open, and leaving it all."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], None] = {}
        self._is_over = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and cut all; who is let in from now on, after a handshake say, is cut at once."""
        self._is_over = True
        if self._server is not None:
            self._server.close()
        # Tasks of connections that were accepted just now have not begun, and so are not known yet.
        for _turn in range(3):
            await asyncio.sleep(0)
        await self.cut()

    async def cut(self) -> None:
        """Cut all connections that are open."""
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = None
        try:
            if not self._is_over:
                await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until this returns."""


@contextlib.asynccontextmanager
async def opened(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to a port of loopback; it is cut in the end, however often who uses it is cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        # Before anything is awaited, which may be cancelled.
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until_one_ends(*works: Coroutine[None, None, None], timeout_s: float | None = None) -> None:
    """Run all until one of them ends, or for so long; return when none of them runs any more."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pass_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until there is no more."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
