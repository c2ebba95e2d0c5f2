"""The JavaScript client in a process of its own, and the Node that runs it.

`start_client` is a fixture, for modules that import it and name it in `__all__`.
"""

import asyncio
import json
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.served_files import client_file

SUPPORT = Path(__file__).parent
QUICK = {"backoffMs": [10, 50]}

Json = dict[str, Any]


class Fault(Exception):
    """What the client threw."""

    def __init__(self, fields: Json) -> None:
        super().__init__(f"{fields['name']}: {fields['message']}")
        self.fields = fields


class JsClient:
    """The client in a process of its own. Messages that come before the result of a call wait for `until`.

    Which of both comes first depends on how busy the machine is: no test may lose one because of it.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._waiting: deque[Json] = deque()

    async def call(self, name: str, *args: object) -> Any:
        """Call a method (or read `streams`); return its result. Raises `Fault`."""
        await self.start(name, *args)
        return await self.until_result()

    async def start(self, name: str, *args: object) -> None:
        assert self._process.stdin is not None
        # What no text is, as half of a pair of surrogates, is written by its number.
        self._process.stdin.write(json.dumps([name, *args]).encode() + b"\n")
        await self._process.stdin.drain()

    async def read_line(self) -> Json | None:
        """Return what the process says next: a `message`, a `result` or a `fault`; None at its end."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        said: Json | None = json.loads(line) if line else None
        return said

    async def _next(self) -> Json:
        async with asyncio.timeout(LONGEST_WAIT_S):
            said = await self.read_line()
        assert said is not None, "the client's process ended"
        if "fault" in said:
            raise Fault(said["fault"])
        return said

    async def until_result(self) -> Any:
        """Return the result of a call that was started. Raises `Fault`."""
        while "result" not in (said := await self._next()):
            self._waiting.append(said["message"])
        return said["result"]

    async def until(self, kind: str, **fields: object) -> list[Json]:
        """Collect messages up to the first of a type with these fields, that one included. Raises `Fault`."""
        messages: list[Json] = []
        while not messages or messages[-1]["type"] != kind or any(messages[-1][k] != v for k, v in fields.items()):
            if self._waiting:
                messages.append(self._waiting.popleft())
            elif "message" in (said := await self._next()):
                messages.append(said["message"])
        return messages

    async def until_open_at(self, time: int) -> list[Json]:
        """Collect messages up to an update of the candle that opened then."""
        messages = await self.until("update")
        while messages[-1]["isClosed"] or messages[-1]["candle"]["time"] != time:
            messages += await self.until("update")
        return messages


StartClient = Callable[..., Awaitable[JsClient]]


def find_node() -> str | None:
    """Return a Node that has a WebSocket: Playwright brings one."""
    try:
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        return shutil.which("node")
    node, _ = compute_driver_executable()
    return str(node)


def node_of(config: pytest.Config) -> str:
    """Return where Node is; without it the test is skipped, or fails with `--need-tools`."""
    node = find_node()
    if node is None:
        why = "there is no Node; pip install playwright brings one"
        if config.getoption("--need-tools"):
            pytest.fail(why)
        pytest.skip(why)
    return node


@pytest.fixture
async def start_client(request: pytest.FixtureRequest) -> AsyncIterator[StartClient]:
    node = node_of(request.config)
    async with AsyncExitStack() as stack:

        async def start(url: str | list[str], *, iterates: bool = True, **options: object) -> JsClient:
            process = await asyncio.create_subprocess_exec(
                *(
                    node,
                    str(SUPPORT / "js_client.mjs"),
                    str(client_file()),
                    url if isinstance(url, str) else orjson.dumps(url).decode(),
                    orjson.dumps(QUICK | options).decode(),
                ),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=2**24,
            )

            async def end() -> None:
                assert process.stdin is not None
                process.stdin.close()
                await process.communicate()

            stack.push_async_callback(end)
            client = JsClient(process)
            if iterates:
                await client.start("iterate")
            return client

        yield start


async def run_node(node: str, script: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        node, "--input-type=module", "-e", script, stdout=PIPE, stderr=DEVNULL
    )
    out, _ = await process.communicate()
    return orjson.loads(out)
