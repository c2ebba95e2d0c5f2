"""Asks `relay mcp` as the program of an assistant does, with the SDK's own client over stdio."""

import asyncio
import json
import sys

from mcp import Client
from mcp.client.stdio import StdioServerParameters


async def ask(url, token):
    environ = {"RELAY_URL": url, "PYTHONPATH": sys.argv[3], "PYTHONWARNINGS": "error"}
    if token:
        environ["RELAY_TOKEN"] = token
    server = StdioServerParameters(command=sys.executable, args=["-m", "relay", *sys.argv[4:]], env=environ)
    found = {}
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
        found["tools"] = {one.name: sorted(one.input_schema["properties"]) for one in tools}
        found["read_only"] = [one.annotations.read_only_hint for one in tools]
        found["server"] = client.server_info.name
        for name, tool, arguments in (
            ("search", "search_instruments", {"query": "btc usdt", "limit": 3}),
            (
                "candles",
                "candles",
                {"symbol": "BTCUSDT", "interval": "1h", "limit": 5, "start": 1_764_000_000},
            ),
            ("latest", "latest", {"symbols": ["BTCUSDT", "NOPE", "EUR/USD"]}),
            ("state", "state", {}),
            ("too_many", "candles", {"symbol": "BTCUSDT", "interval": "1h", "limit": 501}),
            ("wrong_type", "candles", {"symbol": "BTCUSDT", "interval": "1h", "limit": "many"}),
            ("missing", "candles", {"symbol": "BTCUSDT"}),
            ("unknown", "candles", {"symbol": "NOPE", "interval": "1h"}),
            ("no_time", "candles", {"symbol": "BTCUSDT", "interval": "1h", "start": "yesterday"}),
        ):
            said = await client.call_tool(tool, arguments)
            text = "".join(part.text for part in said.content)
            found[name] = {"is_error": said.is_error, "text": text, "values": said.structured_content}
    return found


async def main():
    url, token = sys.argv[1:3]
    found = await ask(url, token)
    found["without_token"] = (await ask(url, ""))["state"]
    found["without_relay"] = (await ask("http://127.0.0.1:9", token))["state"]
    print(json.dumps(found))


asyncio.run(main())
