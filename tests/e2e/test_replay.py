"""`relay serve --replay` as a user runs it: files of `relay history`, the database of a relay that runs, mistakes."""

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.client import RelayClient, State, Update
from relay.core.model import EXTRA_FIELDS
from tests.support import slow_machine
from tests.support.recordings import walk, write_csv
from tests.support.relay_process import CLEAN, Serving, serving
from tests.support.running_relay import PREFIX


async def command(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *words), stdout=asyncio.subprocess.PIPE, env=CLEAN
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def played(running: Serving, *names: str) -> dict[str, list[Update]]:
    """Return the closed candles of streams that a client is told until their recording ends."""
    told: dict[str, list[Update]] = {name: [] for name in names}
    ended: set[str] = set()
    async with RelayClient(running.url) as client:
        await client.subscribe(*names, extended=True)
        async for message in client:
            if isinstance(message, Update) and message.is_closed:
                told[str(message.key)].append(message)
            if isinstance(message, State) and message.status == "market_closed":
                ended.add(str(message.key))
                if len(ended) == len(names):
                    break
    return told


async def get(running: Serving, path: str, **query: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{running.url}{PREFIX}/{path}", params=query) as answer:
        return await answer.json()


async def test_what_history_writes_is_played_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    files = {form: tmp_path / f"week.{form}" for form in ("csv", "ndjson")}
    async with serving(tmp_path) as sandbox:
        for form, file in files.items():
            await command(
                *("history", "btcusdt", "1m", "--limit", "50", f"--{form}", "--extended"),
                *("--output", str(file), "--url", sandbox.url),
            )
    names = ("time", "open", "high", "low", "close", "volume", *EXTRA_FIELDS)
    lines = {form: file.read_text().splitlines() for form, file in files.items()}
    rows = {
        "BTCUSDT@1m": [[float(value) for value in line.split(",")] for line in lines["csv"][1:]],
        # Only this form says that the last candle is open, which is not played then.
        "ETHUSDT@1m": [[row[name] for name in names] for row in map(json.loads, lines["ndjson"]) if row["is_closed"]],
    }
    options = ("--replay", f"binance:BTCUSDT@1m={files['csv']}", "--replay", f"ETHUSDT@1m={files['ndjson']}")
    places = {"TMPDIR": str(tmp_path / "tmp")}
    async with serving(tmp_path, *options, "--speed", "1000", is_sandbox=False, env=places) as running:
        assert "at 1000 times the speed" in running.out[0]
        found = {
            stream: [[getattr(update.candle, name) for name in names] for update in updates]
            for stream, updates in (await played(running, *rows)).items()
        }
        # They are of two providers: time begins with the feed of one, and the other's begins when it has run a little.
        assert all(found[stream] and found[stream] == rows[stream][-len(found[stream]) :] for stream in rows)
        assert any(found[stream] == rows[stream] for stream in rows)
        assert {one["name"] for one in (await get(running, "status"))["providers"]} == {"binance", "replay"}
        assert await running.stop() == 0
    assert [*(tmp_path / "tmp").iterdir()] == []
    assert not (tmp_path / "relay.db").exists()


async def test_the_database_of_a_running_relay_is_played_under_the_names_of_its_providers(tmp_path: Path) -> None:
    database = tmp_path / "relay.db"
    async with serving(tmp_path, "--database", str(database)) as sandbox:
        wanted = await get(sandbox, "history", symbol="BTCUSDT", interval="1m", limit="300")
        await get(sandbox, "history", symbol="EUR/USD", interval="1h", limit="50")
        known = {one["id"]: one for one in await get(sandbox, "instruments")}
        async with RelayClient(sandbox.url) as client:
            # It goes on writing.
            await client.subscribe("BTCUSDT@1s")
            await anext(one async for one in client if isinstance(one, Update) and one.is_closed)
            start = wanted["candles"][200]["time"]
            options = ("--replay", str(database), "--from", str(start), "--speed", "100")
            async with serving(tmp_path, *options, is_sandbox=False) as running:
                found = await get(running, "history", symbol="BTCUSDT", interval="1m", limit="500")
                assert found["candles"][:-1] == wanted["candles"][:200]
                assert found["candles"][-1]["time"] == start
                mine = {one["id"]: one for one in await get(running, "instruments")}
                assert {"binance:BTCUSDT", "twelve_data:EUR/USD"} <= {*mine}
                for name in ("asset_class", "price_step", "base", "quote"):
                    assert mine["binance:BTCUSDT"][name] == known["binance:BTCUSDT"][name]
                assert "recording" in await running.logs("the recording")
                assert await running.stop() == 0
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_settings_and_keys_of_live_providers_do_not_matter(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "week.csv", walk(10))
    (tmp_path / "relay.toml").write_text(
        'database = "kept.db"\nretention = "1m=1d"\n[binance]\nws_url = ["ws://localhost:1"]\n'
        '[providers.second]\nuses = "twelve_data"\napi_key = "k"\n'
    )
    names = {"RELAY_BINANCE_ENABLED": "false", "RELAY_TWELVE_DATA_API_KEY": "k"}
    options = ("--replay", f"binance:BTCUSDT@1m={file}", "--speed", "60000")
    async with serving(tmp_path, *options, is_sandbox=False, env=names) as running:
        told = await played(running, "BTCUSDT@1m")
        assert len(told["BTCUSDT@1m"]) == 10
        assert [one["name"] for one in (await get(running, "status"))["providers"]] == ["binance"]
        assert "the configuration was read again" in await running.hang_up("the configuration was read again")
        assert await running.stop() == 0
        assert not [line for line in slow_machine.other_lines(running.err) if "WARNING" in line or "ERROR" in line]
    assert not (tmp_path / "kept.db").exists()


async def test_a_plugin_that_a_flag_names_serves_beside_the_recording(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "week.csv", walk(10))
    plugin = Path(__file__).parents[1] / "plugins" / "clock.py"
    options = ("--replay", f"BTCUSDT@1m={file}", "--plugins", str(plugin))
    async with serving(tmp_path, *options, is_sandbox=False) as running:
        assert {one["name"] for one in (await get(running, "status"))["providers"]} == {"replay", "clock"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speed", "60"], "--speed needs --replay"),
        (["--from", "2024-01-01"], "--from needs --replay"),
        (["--replay", "week.csv", "--sandbox"], "--replay and --sandbox exclude each other"),
        (["--replay", "week.csv", "--database", "x.db"], "--replay stores nothing, so it takes no --database"),
        (["--replay", "A@1m=week.csv", "--speed", "0.5"], "0.5 is not in the range 1<=x<=1000000"),
        (["--replay", "none.csv"], "--replay none.csv: there is no such file; name a CSV or NDJSON file"),
        (["--replay", "week.csv"], "week.csv, line 2: it is not said of which stream the candle is; write --replay"),
        (["--replay", "A@1m=head.csv"], "--replay head.csv: there are no candles in it"),
        (["--replay", "A@1m=week.csv", "--replay", "empty.db"], "takes one database, or one or more files"),
        (["--replay", "empty.db"], "database empty.db: is not a database of a relay; name another file"),
        (
            ["--replay", "A@1m=week.csv", "--from", "2024-11-23"],
            "--from 2024-11-23T00:00:00Z is before the recording begins; it has candles from 2024-11-24T00:00:00Z to "
            "2024-11-24T00:05:00Z",
        ),
        (
            ["--replay", "A@1m=week.csv", "--from", "2024-11-24T00:05"],
            "is after the recording ends; it has candles from",
        ),
        (["--replay", "A@1m=week.csv", "--from", "20241124"], "did you mean 2024-11-24?"),
    ],
)
def test_mistakes_are_named(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "week.csv", walk(5))
    write_csv(tmp_path / "head.csv", [])
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE a (b)")
    result = CliRunner().invoke(main, ["serve", "--port", "0", *words])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
