"""`relay mcp`: lets an assistant read from a running relay, over the Model Context Protocol on stdin and stdout.

The SDK is an extra, and is imported only when the command runs.
"""

import os
import signal
import threading
from collections.abc import Awaitable
from typing import Any

import click

from relay.client import ClientError, RelayClient
from relay.commands.assistant_tools import (
    MOST_CANDLES,
    MOST_INSTRUMENTS,
    MOST_LATEST,
    AssistantTools,
    ToolAnswer,
    explained,
)
from relay.commands.run_client import call, relay_options
from relay.core.version import NAME, VERSION

INSTRUCTIONS = """\
Market data of a market-relay, read-only: candles of crypto, currencies and futures. Search for an instrument first:
symbols are spelt as their provider does (BTCUSDT, EUR/USD). Intervals are 1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d
1w 1M; 1m is a minute, 1M a month. Times are open times in UTC. A candle that is not closed still changes. Say so if
data is not live or not complete, and name the provider."""
_SEARCH = f"""\
Find instruments by words in symbol, name, base or quote, the best first; `provider:SYMBOL` finds one.
limit: 1 to {MOST_INSTRUMENTS}."""
_CANDLES = f"""\
Open, high, low, close and volume of one symbol at one interval, oldest first. Without start the last ones up to end or
now; with start the first ones from there on. start and end, both inclusive: 2025-11-24T16:00:00Z, 2025-11-24 or Unix
seconds. limit: 1 to {MOST_CANDLES}."""
_LATEST = f"The newest candle of each of up to {MOST_LATEST} symbols; its close is the newest price."
_STATE = """\
State of the relay and quality of its data: providers, their request budgets, the streams that clients follow and
whether they are live, gaps, revisions, and how many candles differed from history."""


@click.command("mcp", short_help="Let an assistant read from a running relay, over MCP.")
@relay_options
def command(url: str, token: str | None) -> None:
    """Let an assistant read from a running relay: the Model Context Protocol on stdin and stdout.

    The program of the assistant starts this command. It can search instruments, read candles and latest values, and the
    state of the relay; it can change nothing. Needs: pip install 'market-relay[mcp]'

    \b
    Examples:
      relay mcp
      relay mcp --url https://relay.example.org
    """
    try:
        import mcp.server.mcpserver  # noqa: F401 - it takes a second, and whoever starts this waits for it
    except ImportError:
        said = "relay mcp needs the package mcp, 2.3 or newer; install it with: pip install 'market-relay[mcp]'"
        raise click.ClickException(said) from None

    async def work(client: RelayClient) -> None:
        _end_by_signals()
        await _server(AssistantTools(client)).run_stdio_async()

    call(url, token, work)


def _end_by_signals() -> None:
    """Let SIGINT and SIGTERM end the process at once.

    A thread of the SDK waits for a line on stdin, and would keep it until one comes. There is nothing to save.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def _server(tools: AssistantTools) -> Any:
    """Return a server of the SDK with the tools."""
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import CallToolResult, TextContent, ToolAnnotations

    async def result_of(answer: Awaitable[ToolAnswer]) -> CallToolResult:
        try:
            text, values = await answer
        except ClientError as fault:
            raise ToolError(explained(fault)) from None
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=values)

    # The SDK makes the schemas of these signatures.
    async def search_instruments(query: str, limit: int = 20) -> CallToolResult:
        return await result_of(tools.search_instruments(query, limit))

    async def candles(
        symbol: str,
        interval: str,
        limit: int = 100,
        start: str | int | None = None,
        end: str | int | None = None,
    ) -> CallToolResult:
        return await result_of(tools.candles(symbol, interval, limit, start, end))

    async def latest(symbols: list[str], interval: str = "1m") -> CallToolResult:
        return await result_of(tools.latest(symbols, interval))

    async def state() -> CallToolResult:
        return await result_of(tools.state())

    server = MCPServer(NAME, version=VERSION, instructions=INSTRUCTIONS, log_level="WARNING")
    annotations = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=True)
    for function, description in (
        (search_instruments, _SEARCH),
        (candles, _CANDLES),
        (latest, _LATEST),
        (state, _STATE),
    ):
        server.add_tool(function, description=description, annotations=annotations)
    return server
