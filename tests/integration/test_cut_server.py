"""The stand-ins that pass connections on leave none open, whenever and however often they are cut."""

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.support.connect_proxy import ConnectProxy
from tests.support.cut_server import CutServer
from tests.support.nats_server import HoldingLine
from tests.support.rude_proxy import RudeProxy


class Target(CutServer):
    """Answers what comes, and counts who is there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.has_left = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        finally:
            self.count -= 1
            self.has_left.set()


PROXIES: list[Callable[[int], CutServer]] = [
    lambda port: RudeProxy(port, random.Random(1)),
    lambda port: ConnectProxy(),
    HoldingLine,
]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("proxy_to", PROXIES, ids=["rude", "connect", "holding"])
async def test_connection_that_is_cut_twice_is_not_left_open(proxy_to: Callable[[int], CutServer], turns: int) -> None:
    async with Target() as target, proxy_to(target.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        if isinstance(proxy, ConnectProxy):
            writer.write(f"CONNECT 127.0.0.1:{target.port} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        first = asyncio.create_task(proxy.cut())
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy.cut()
        await first
        # Who is garbage says so: that is a failure.
        await target.has_left.wait()
        assert target.count == 0
        writer.close()
        await writer.wait_closed()
