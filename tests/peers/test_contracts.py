"""Tools that other people wrote read our contracts, generate clients from them and try to break what they promise."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import StartRelay
from tests.peers.environments import CLIENTS, environment, execute, node_environment, run
from tests.support.running_relay import Running

# Making an environment takes minutes the first time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]


TOKEN = "a-long-random-text-for-tests"
PACKAGES = ("schemathesis==4.32.5", "openapi-python-client==0.29.1", "datamodel-code-generator==0.89.0")
PARSER = "@asyncapi/parser@3.6.3"


async def generators() -> Path:
    """Give the Python of the environment with the tools."""
    return await asyncio.to_thread(environment, *PACKAGES)


async def generous(relay_with: StartRelay) -> Running:
    """Start a relay with a token whose limits are not what is tested."""
    return await relay_with(
        tokens=[TOKEN],
        max_requests_per_second_per_address=1_000_000.0,
        max_history_rows_per_minute_per_address=10_000_000_000,
    )


async def test_schemathesis_finds_nothing(
    relay_with: StartRelay, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    python = await generators()
    relay = await generous(relay_with)
    report = tmp_path / "report.json"
    said = await execute(
        python.parent / "schemathesis",
        "--config-file",
        CLIENTS / "schemathesis.toml",
        "run",
        f"{relay.url}/openapi.json",
        "--checks",
        "all",
        "--header",
        f"Authorization: Bearer {TOKEN}",
        "--max-examples",
        str(request.config.getoption("--schemathesis-examples")),
        "--seed",
        "1",
        "--no-color",
        environ={"SCHEMATHESIS_HOOKS": "known_symbols", "PYTHONPATH": str(CLIENTS)},
        # It keeps what it found in `.schemathesis/` of its folder, for the next run: none of ours is to depend on it.
        cwd=tmp_path,
        timeout_s=800,
    )
    assert "Operations:       8 selected / 8 total" in said, said
    assert "No issues found" in said, said
    assert not report.exists()


async def generated(python: Path, relay: Running, contract: str, folder: Path) -> None:
    """Make a client in a folder."""
    document = folder / "openapi.json"
    document.write_text((await relay.get(contract)).text)
    settings = folder / "settings.yaml"
    settings.write_text("literal_enums: true\npost_hooks: []\n")
    said = await execute(
        python.parent / "openapi-python-client",
        "generate",
        "--path",
        document,
        "--output-path",
        folder / "generated",
        "--meta",
        "none",
        "--config",
        settings,
    )
    assert "warning" not in said.lower(), said


async def test_a_client_generated_from_openapi_gets_typed_candles(relay_with: StartRelay, tmp_path: Path) -> None:
    python = await generators()
    relay = await generous(relay_with)
    await generated(python, relay, "/openapi.json", tmp_path)
    got = await run(python, "openapi_client", str(tmp_path), relay.url, TOKEN)
    authorization = {"Authorization": f"Bearer {TOKEN}"}
    truth = (
        await relay.get(
            "history", symbol="BTCUSDT", interval="1m", start_time=1_764_000_000, limit=3, headers=authorization
        )
    ).body
    assert got["candles"] == [list(candle.values()) for candle in truth["candles"]]
    assert len(got["candles"]) == 3
    assert (got["types"], got["last_is_closed"]) == (["CandleObject"], True)
    assert got["refused"] == [404, "unknown_symbol"]
    assert got["providers"] == ["binance", "twelve_data"]
    assert "EUR/USD" in got["forex"]
    assert "BTCUSDT" in got["symbols"]
    assert got["health"] == "ok"
    assert got["stranger"] == "unauthorized"


async def test_a_client_generated_from_the_contract_for_binance_gets_klines(
    relay_with: StartRelay, tmp_path: Path
) -> None:
    python = await generators()
    relay = await generous(relay_with)
    await generated(python, relay, "/openapi/binance.json", tmp_path)
    got = await run(python, "binance_openapi_client", str(tmp_path), f"{relay.url}/t/{TOKEN}")
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "startTime": 1_764_000_000_000, "limit": 3}
    assert got["rows"] == (await relay.get(f"/t/{TOKEN}/api/v3/klines", **query)).body
    assert (len(got["rows"]), got["refused"], got["listed"], got["bids"]) == (3, -1121, ["BTCUSDT"], 5)


async def test_the_official_parser_takes_the_asyncapi_document_for_binance(relay: Running, tmp_path: Path) -> None:
    node, folder = await asyncio.to_thread(node_environment, PARSER)
    document = tmp_path / "asyncapi.json"
    document.write_text((await relay.get("/asyncapi/binance.json")).text)
    found = await parsed(node, folder, document)
    assert (found["version"], found["problems"]) == ("3.0.0", [])
    assert {"SubscribeStreams", "KlineEvent", "CombinedEvent", "RequestError"} <= set(found["messages"])


async def test_the_official_parser_takes_the_asyncapi_document(relay: Running, tmp_path: Path) -> None:
    node, folder = await asyncio.to_thread(node_environment, PARSER)
    document = tmp_path / "asyncapi.json"
    document.write_text((await relay.get("/asyncapi.json")).text)
    found = await parsed(node, folder, document)
    assert (found["version"], found["problems"]) == ("3.0.0", [])
    messages = {"Subscribe", "SubscribeMany", "PriceUpdateMessage", "SnapshotMessage", "GapMessage"}
    assert messages <= set(found["messages"])
    assert set(found["operations"]) == {"subscribe", "unsubscribe", "list", "ping", "tell"}
    broken = json.loads(document.read_text())
    broken["operations"]["tell"]["action"] = "shout"
    document.write_text(json.dumps(broken))
    assert (await parsed(node, folder, document))["problems"] != []


async def parsed(node: Path, folder: Path, document: Path) -> Any:
    said = await execute(node, CLIENTS / "parse.mjs", folder, document)
    return json.loads(said.strip().splitlines()[-1])


async def test_models_generated_from_asyncapi_read_a_live_session(relay: Running, tmp_path: Path) -> None:
    python = await generators()
    (tmp_path / "asyncapi.json").write_text((await relay.get("/asyncapi.json")).text)
    await execute(
        python.parent / "datamodel-codegen",
        "--input",
        tmp_path / "asyncapi.json",
        "--input-file-type",
        "asyncapi",
        "--output",
        tmp_path / "models.py",
        "--output-model-type",
        "pydantic_v2.BaseModel",
        "--disable-timestamp",
        "--formatters",
        "builtin",
    )
    client = await relay.connect()
    await client.ask("subscribe", streams=["BTCUSDT@1s", "EUR/USD@1m", "NOPE@1m"], bars=5, id_="a")
    for _ in range(6):
        await client.update()
    await client.ask("list", id_=1)
    await client.ask("ping", id_=2)
    await client.answer(2)
    (tmp_path / "session.ndjson").write_bytes(b"\n".join(map(orjson.dumps, client.received)))
    got = await run(python, "asyncapi_models", str(tmp_path))
    assert sum(got["seen"].values()) == len(client.received)
    seen = {"Greeting", "Subscription", "SnapshotMessage", "PriceUpdateMessage", "ErrorMessage", "Pong"}
    assert seen <= set(got["seen"])
    assert got["closes"] == [one["candle"]["close"] for one in client.received if one["type"] == "price_update"]
    assert got["refused"] == ["bars", "bars", "throttle_ms", "interval", "symbol"]
    await client.send_text(got["asked"])
    assert (await client.until_type("subscription", symbol="BTCUSDT", interval="1m"))["status"] == "ok"
