"""A TCP proxy on loopback that treats connections badly: it cuts, delays, trickles and swallows, as its dice say."""

import asyncio
import contextlib
import random
from collections import Counter
from typing import Final

MANNERS: Final = ("plain", "cut", "delay", "trickle", "swallow")


class RudeProxy:
    """Passes bytes to and from `target`, a port on loopback. Each connection has one of `MANNERS`, drawn when it opens.

    At first it is kind; `set_rude` cuts what is open and changes that. A connection that is not plain ends by itself
    after 1 to `most_s` seconds; a swallowed one says nothing from then on and stays, until its client leaves or
    `hole_s` seconds are over. `seen` counts manners.
    """

    def __init__(self, target: int, dice: random.Random, *, most_s: float = 6.0, hole_s: float = 60.0) -> None:
        self._is_rude = False
        self.seen: Counter[str] = Counter()
        self.port = 0
        self._target = target
        self._dice = dice
        self._most_s = most_s
        self._hole_s = hole_s
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], None] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "RudeProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._end_all()

    async def set_rude(self, is_rude: bool) -> None:
        """Cut what is open, and be rude or kind from now on."""
        self._is_rude = is_rude
        await self._end_all()

    async def _end_all(self) -> None:
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
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        manner = self._dice.choice(MANNERS) if self._is_rude else "plain"
        self.seen[manner] += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ends_s = self._dice.uniform(1, self._most_s)
        passing = [
            asyncio.create_task(self._pass(reader, back, "plain")),
            asyncio.create_task(self._pass(there, writer, manner if manner in ("delay", "trickle") else "plain")),
        ]
        try:
            await asyncio.wait(
                passing, timeout=None if manner == "plain" else ends_s, return_when=asyncio.FIRST_COMPLETED
            )
            if manner == "swallow":
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._hole_s):
                        # What the client says goes nowhere, and its end is seen.
                        while await reader.read(65536):
                            pass
        finally:
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            back.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, manner: str) -> None:
        while data := await reader.read(65536):
            if manner == "delay":
                await asyncio.sleep(self._dice.uniform(0, 1.5))
            if manner == "trickle":
                while data and self._dice.random() > 0.02:
                    size = self._dice.randint(1, 400)
                    writer.write(data[:size])
                    data = data[size:]
                    await asyncio.sleep(0.002)
            writer.write(data)
            await writer.drain()
