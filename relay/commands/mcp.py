"""`relay mcp`: lets an assistant read from a running relay, over the Model Context Protocol on stdin and stdout.

The SDK is an extra, and is imported only when the command runs.
"""

import os
import signal
import threading
from typing import Any

import click

from relay.client import ClientError, RelayClient
from relay.commands.assistant_calls import TOOLS, answer
from relay.commands.assistant_tools import AssistantTools, explained
from relay.commands.run_client import call, relay_options
from relay.core.version import NAME, VERSION

INSTRUCTIONS = """\
Market data of a market-relay, read-only: candles of crypto, currencies and futures. Search for an instrument first:
symbols are spelt as their provider does (BTCUSDT, EUR/USD). Intervals are 1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d
1w 1M; 1m is a minute, 1M a month. Times are open times in UTC. A candle that is not closed still changes. Say so if
data is not live or not complete, and name the provider."""


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
        # It takes a second, and whoever starts this waits for it.
        import mcp.server.mcpserver  # noqa: F401 - earlier versions have none
        from mcp.server.stdio import stdio_server
    except ImportError:
        said = "relay mcp needs the package mcp, 2.3 or newer; install it with: pip install 'market-relay[mcp]'"
        raise click.ClickException(said) from None

    async def work(client: RelayClient) -> None:
        _end_by_signals()
        server = _server(AssistantTools(client))
        async with stdio_server() as (requests, answers):
            await server.run(requests, answers, server.create_initialization_options())

    call(url, token, work)


def _end_by_signals() -> None:
    """Let SIGINT and SIGTERM end the process at once.

    A thread of the SDK waits for a line on stdin, and would keep it until one comes. There is nothing to save.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def _server(tools: AssistantTools) -> Any:
    """Return a server of the SDK with the tools.

    The one that makes schemas of functions says in its own words what is wrong with an argument.
    """
    from mcp.server.lowlevel import Server
    from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations

    annotations = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=True)
    described = [
        Tool(name=one.name, description=one.description, input_schema=one.schema(), annotations=annotations)
        for one in TOOLS
    ]

    async def list_tools(_: object, __: object) -> Any:
        return ListToolsResult(tools=described)

    async def call_tool(_: object, asked: Any) -> Any:
        try:
            text, values = await answer(tools, asked.name, asked.arguments or {})
        except ClientError as fault:
            return CallToolResult(content=[TextContent(type="text", text=explained(fault))], is_error=True)
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=values)

    return Server(NAME, version=VERSION, instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool)
