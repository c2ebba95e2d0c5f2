"""A TCP proxy on loopback that treats connections badly: it cuts, delays, trickles and swallows, as its dice say."""

import asyncio
import contextlib
import random
from collections import Counter
from typing import Final

from tests.support.cut_server import CutServer, opened, pass_bytes, until_one_ends

MANNERS: Final = ("plain", "cut", "delay", "trickle", "swallow")


class RudeProxy(CutServer):
    """Passes bytes to and from `target`, a port on loopback. Each connection has one of `MANNERS`, drawn when it opens.

    At first it is kind; `set_rude` cuts what is open and changes that. A connection that is not plain ends by itself
    after 1 to `most_s` seconds; a swallowed one says nothing from then on and stays, until its client leaves or
    `hole_s` seconds are over. `seen` counts manners.
    """

    def __init__(self, target: int, dice: random.Random, *, most_s: float = 6.0, hole_s: float = 60.0) -> None:
        super().__init__()
        self._is_rude = False
        self.seen: Counter[str] = Counter()
        self._target = target
        self._dice = dice
        self._most_s = most_s
        self._hole_s = hole_s

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def set_rude(self, is_rude: bool) -> None:
        """Cut what is open, and be rude or kind from now on."""
        self._is_rude = is_rude
        await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        manner = self._dice.choice(MANNERS) if self._is_rude else "plain"
        self.seen[manner] += 1
        ends_s = self._dice.uniform(1, self._most_s)
        async with opened(self._target) as (there, back):
            await until_one_ends(
                pass_bytes(reader, back),
                self._pass(there, writer, manner),
                timeout_s=None if manner == "plain" else ends_s,
            )
            if manner == "swallow":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._hole_s):
                        # What the client says goes nowhere, and its end is seen.
                        while await reader.read(65536):
                            pass

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
