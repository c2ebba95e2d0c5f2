"""The recipes of the guide for other tools, run from its text against a relay with a token."""

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartRelay
from tests.peers.environments import REPOSITORY, environment, execute, requirements_of_relay
from tests.support.running_relay import Running

# Making an environment takes a minute the first time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

GUIDE = (REPOSITORY / "relay" / "client" / "README.md").read_text(encoding="utf-8")
GRAFANA = REPOSITORY / "relay" / "packaging" / "compose" / "grafana"
TOKEN = "a-long-random-text-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
VERSIONS = ("pandas==3.1.1", "polars==2.1.0", "duckdb==2.0.1", "mcp==2.3.0")


def block(heading: str, language: str = "python") -> str:
    """Return the code block of a section."""
    section = GUIDE[GUIDE.index(f"\n## {heading}\n") :]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
async def relay(relay_with: StartRelay) -> Running:
    return await relay_with(tokens=[TOKEN])


async def tools() -> Path:
    """Give the Python of an environment with the tools and what the relay needs, but without the relay."""
    return await asyncio.to_thread(environment, *requirements_of_relay(), *VERSIONS)


async def run_block(relay: Running, heading: str, folder: Path, *, path: str = "") -> str:
    """Run a block in an environment of its own, with a folder to import from; return what it printed."""
    python = await tools()
    environ = {"RELAY_URL": relay.url, "RELAY_TOKEN": TOKEN, "POLARS_MAX_THREADS": "1", "PYTHONPATH": path}
    return await execute(python, "-W", "error", "-c", block(heading), environ=environ, cwd=folder)


async def closed(relay: Running, symbol: str) -> list[dict[str, Any]]:
    """Return the last 1,000 closed hours."""
    answer = (await relay.get("history", symbol=symbol, interval="1h", limit=1001, headers=BEARER)).body
    found: list[dict[str, Any]] = answer["candles"] if answer["last_is_closed"] else answer["candles"][:-1]
    return found[-1000:]


async def run_with_truth(
    relay: Running, heading: str, folder: Path, *symbols: str, path: str = ""
) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """Run a block; return what it printed, and the last 1,000 closed hours that it saw, by symbol.

    Where an hour ends meanwhile nobody knows which those were, and the block is run once more.
    """
    while True:
        truth = {symbol: await closed(relay, symbol) for symbol in symbols}
        said = await run_block(relay, heading, folder, path=path)
        if truth == {symbol: await closed(relay, symbol) for symbol in symbols}:
            return said, truth


async def test_pandas_reads_csv(relay: Running, tmp_path: Path) -> None:
    said, truth = await run_with_truth(relay, "pandas", tmp_path, "BTCUSDT")
    last = said.strip().splitlines()[-2].split()
    assert last[0].startswith("20")
    assert float(last[-1]) == truth["BTCUSDT"][-1]["close"]
    assert "datetime64" not in said.splitlines()[-1]
    assert "+00:00" in said


async def test_pandas_reads_several_symbols_and_shows_which_failed(relay: Running, tmp_path: Path) -> None:
    said = await run_block(relay, "Several symbols", tmp_path)
    assert re.search(r"NOPE\s+unknown_symbol\s+unknown symbol 'NOPE'", said)
    assert re.search(r"^BTCUSDT\s+1\.0", said, re.MULTILINE)
    assert re.search(r"^EUR/USD\s.*1\.0+$", said, re.MULTILINE)


async def test_polars_reads_csv(relay: Running, tmp_path: Path) -> None:
    said, truth = await run_with_truth(relay, "polars", tmp_path, "BTCUSDT")
    close, _ = re.findall(r"UTC .*? ([\d.]+) .*? ([\d.]+) ", said)[-1]
    assert float(close) == pytest.approx(truth["BTCUSDT"][-1]["close"], rel=1e-5)


async def test_duckdb_writes_parquet(relay: Running, tmp_path: Path) -> None:
    said, truth = await run_with_truth(relay, "DuckDB and Parquet", tmp_path, "BTCUSDT", "ETHUSDT", "EUR/USD")
    assert (tmp_path / "candles.parquet").read_bytes()[:4] == b"PAR1"
    for symbol, candles in truth.items():
        found = re.search(rf"{symbol}\W+(\d+)\W+([\d.]+)\W+([\d.]+)", said)
        assert found is not None, said
        assert int(found[1]) == len(candles)
        assert float(found[2]) == min(candle["low"] for candle in candles)
        assert float(found[3]) == max(candle["high"] for candle in candles)


async def test_the_python_client_makes_a_data_frame(relay: Running, tmp_path: Path) -> None:
    said, truth = await run_with_truth(relay, "The Python client", tmp_path, "BTCUSDT", path=str(REPOSITORY))
    last = truth["BTCUSDT"][-1]
    opened = datetime.fromtimestamp(last["time"], UTC)
    assert re.search(rf"^{re.escape(str(opened))} +{last['close']} +\d+\.0 binance$", said, re.MULTILINE), said
    assert "True unknown symbol 'NOPE'" in said


async def rows_of(relay: Running, path: str, headers: dict[str, str] | None = None, **query: str) -> list[list[str]]:
    answer = await relay.get(path, headers=headers, **query)
    assert answer.status == 200, answer.text
    return list(csv.reader(io.StringIO(answer.text)))


async def test_a_sheet_gets_csv_by_a_token_in_the_path(relay: Running) -> None:
    formula = re.fullmatch(r'=IMPORTDATA\("(https://.*)"\)\n', block("Google Sheets", "text"))
    assert formula is not None
    address = urlsplit(formula[1].replace("TOKEN", TOKEN))
    rows = await rows_of(relay, f"{address.path}?{address.query}")
    assert rows[0] == ["time", "open", "high", "low", "close", "volume"]
    assert len(rows) == 1 + 365


async def test_power_query_gets_csv_by_a_header(relay: Running) -> None:
    text = block("Excel", "powerquery")
    contents = re.search(
        r'Web\.Contents\("(.*?)", \[\s+RelativePath = "(.*?)",\s+Query = \[(.*?)\],\s+Headers = \[(.*?)\]', text
    )
    assert contents is not None
    query, headers = (dict(re.findall(r'(\w+) = "(.*?)"', part)) for part in contents.groups()[2:])
    assert urlsplit(contents[1]).path == ""
    headers = {name: value.replace("TOKEN", TOKEN) for name, value in headers.items()}
    rows = await rows_of(relay, f"/{contents[2]}", headers, **query)
    assert len(rows) == 1 + 365
    assert text.count("(") == text.count(")")


def queries() -> list[tuple[str, dict[str, Any]]]:
    """Return what the dashboard asks, by the panel or the variable that does."""
    board = json.loads((GRAFANA / "candles.json").read_text(encoding="utf-8"))
    found = [(panel["title"], target) for panel in board["panels"] for target in panel["targets"]]
    variables = board["templating"]["list"]
    return found + [(one["name"], one["query"]["infinityQuery"]) for one in variables if one["type"] == "query"]


@pytest.mark.parametrize(("asker", "query"), queries(), ids=[asker for asker, _ in queries()])
async def test_grafana_finds_every_column_of_its_dashboard(relay: Running, asker: str, query: dict[str, Any]) -> None:
    client = await relay.connect(headers=BEARER)
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    board = json.loads((GRAFANA / "candles.json").read_text(encoding="utf-8"))
    values = {one["name"]: one["current"]["value"] for one in board["templating"]["list"]}
    values["__to:date:seconds"] = "1764000000"
    params = {
        one["key"]: re.sub(r"\$\{(.*?)\}", lambda found: values[found[1]], one["value"])
        for one in query["url_options"]["params"]
    }
    answer = await relay.get(query["url"], headers=BEARER, **params)
    assert answer.status == 200, answer.text
    rows = answer.body[query["root_selector"]] if query["root_selector"] else answer.body
    assert rows
    kinds = {"number": (int, float, type(None)), "string": (str,), "timestamp_epoch_s": (int,)}
    for column in query["columns"]:
        for row in rows:
            assert isinstance(row[column["selector"]], kinds[column["type"]]), column
    if query["root_selector"] == "candles":
        assert (len(rows), rows[-1]["time"]) == (int(values["candles"]), 1764000000)
