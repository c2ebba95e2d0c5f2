"""A server of plain connections on loopback, all of which can be cut."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from typing import Self


class CutServer(ABC):
    """Accepts connections on a free port; `cut` ends all that are open, and leaving it all."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], None] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
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
            await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until this returns."""
