"""`relay mcp` with the client of the official SDK, over stdio, against a relay with a token."""

import asyncio
import json
import os
import signal

import pytest

from tests.conftest import StartRelay
from tests.peers.environments import REPOSITORY, run
from tests.peers.test_data_tools import BEARER, TOKEN, block, tools
from tests.support.conditions import LONGEST_WAIT_S

# Making an environment takes minutes the first time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

START = 1_764_000_000


async def test_an_assistant_reads_from_a_relay_and_is_told_in_clear_words_what_is_wrong(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=[TOKEN])
    said = json.loads(block("An assistant", "json"))["mcpServers"]["market-relay"]
    assert (said["command"], {*said["env"]}) == ("relay", {"RELAY_URL", "RELAY_TOKEN"})
    python = await tools()
    got = await run(python, "mcp_client", relay.url, TOKEN, str(REPOSITORY), *said["args"])
    assert got["server"] == "market-relay"
    assert got["tools"] == {
        "search_instruments": ["limit", "query"],
        "candles": ["end", "interval", "limit", "start", "symbol"],
        "latest": ["interval", "symbols"],
        "state": [],
    }
    assert got["read_only"] == [True] * 4
    assert got["search"]["values"]["instruments"][0]["id"] == "binance:BTCUSDT"
    truth = (
        await relay.get("history", symbol="BTCUSDT", interval="1h", start_time=START, limit=5, headers=BEARER)
    ).body["candles"]
    rows = got["candles"]["values"]["rows"]
    assert [row[1:] for row in rows] == [[*candle.values()][1:] for candle in truth]
    assert rows[0][0] == "2025-11-24T16:00:00Z"
    lines = got["candles"]["text"].splitlines()
    assert lines[0].startswith("BTCUSDT 1h of binance, 5 candles")
    assert len(lines) == 7
    assert len(got["candles"]["text"]) < 600
    assert [row.get("code") for row in got["latest"]["values"]["latest"]] == [None, "unknown_symbol", None]
    assert {one["name"]: one["state"] for one in got["state"]["values"]["providers"]}["binance"] == "ok"
    for name, said in (
        ("too_many", "limit 501 is not a whole number from 1 to 500"),
        ("wrong_type", "limit 'many' is not a whole number from 1 to 500"),
        ("missing", 'interval is missing; give one, for example "interval":"1h"'),
        ("unknown", "unknown symbol 'NOPE'"),
        ("no_time", "start 'yesterday' is not a time; write 2025-11-24T16:00:00Z"),
        ("without_token", "start relay mcp with RELAY_TOKEN"),
        ("without_relay", "no relay reached at http://127.0.0.1:9: connection refused"),
    ):
        assert got[name]["is_error"], name
        assert said in got[name]["text"], got[name]["text"]
        assert "\n" not in got[name]["text"]
    assert TOKEN not in str(got)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_while_it_waits_for_a_request(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(await tools(), "-m", "relay", "mcp"),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    assert json.loads(await process.stdout.readline())["id"] == 1
    process.send_signal(number)
    async with asyncio.timeout(LONGEST_WAIT_S):
        assert await process.wait() == 128 + number
    assert await process.stderr.read() == b""
    process.stdin.close()
