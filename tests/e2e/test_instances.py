"""`relay serve` with two instances of each provider, on stand-ins that differ: nothing of one gets to the other."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import CLEAN, Serving, serving
from tests.support.sandbox import Sandbox

API = "/api/v1/market-data"
KEYS = {"one": "key-of-account-one", "two": "key-of-account-two"}


@pytest.fixture
async def venues() -> AsyncIterator[dict[str, Sandbox]]:
    """Two stand-ins of each exchange, with prices and keys of their own."""
    async with AsyncExitStack() as stack:
        found = {}
        for seed, name in enumerate(KEYS, 1):
            found[name] = await stack.enter_async_context(Sandbox(seed=seed, pace_s=0.2, forex_always_open=True))
            found[name].twelve_data.rest.api_key = KEYS[name]
        yield found


def written(folder: Path, venues: dict[str, Sandbox], more: str = "") -> None:
    """Write the configuration: `spot_…` are instances of Binance, `forex_…` of Twelve Data."""
    lines = ["database = 'relay.db'", "linger_seconds = 0.2", more]
    for name, venue in venues.items():
        lines += [
            f"[providers.spot_{name}]",
            "uses = 'binance'",
            f"ws_url = '{venue.binance.ws_url}'",
            f"rest_url = '{venue.binance.rest_url}'",
            f"[providers.forex_{name}]",
            "uses = 'twelve_data'",
            f"api_key = '{KEYS[name]}'",
            f"rest_url = '{venue.twelve_data.rest_url}'",
            f"ws_url = '{venue.twelve_data.ws_url}'",
            "market_hours = 'always'",
            "poll_seconds = 1",
            f"credits_per_minute = {610 if name == 'one' else 55}",
        ]
    lines += ["[providers.binance]", "enabled = false", "[providers.twelve_data]", "enabled = false"]
    (folder / "relay.toml").write_text("\n".join(lines))


class Asker:
    """Asks one relay."""

    def __init__(self, session: aiohttp.ClientSession, relay: Serving) -> None:
        self._session = session
        self._relay = relay

    async def get(self, path: str, **query: str | int) -> Any:
        async with self._session.get(f"{self._relay.url}{API}/{path}", params=query) as answer:
            return await answer.json()

    async def metrics(self) -> str:
        async with self._session.get(f"{self._relay.url}/metrics") as answer:
            return await answer.text()

    async def past(self, name: str, end: int) -> list[dict[str, Any]]:
        """Return ten closed candles of a stream, whose provider is told as its pin is."""
        answer = await self.get("history", symbol=name, interval="1m", end_time=end, limit=10)
        assert answer["provider"] == name.partition(":")[0], answer
        found: list[dict[str, Any]] = answer["candles"]
        assert len(found) == 10
        return found

    async def used(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return the limit and the used part of each budget, by provider and name."""
        budgets = (await self.get("status"))["budgets"]
        return {(one["provider"], one["name"]): (one["limit"], one["used"]) for one in budgets}


STREAMS = ("spot_one:BTCUSDT", "spot_two:BTCUSDT", "forex_one:EUR/USD", "forex_two:EUR/USD")


async def test_two_accounts_of_one_provider_do_not_mix(tmp_path: Path, venues: dict[str, Sandbox]) -> None:
    written(tmp_path, venues)
    end = int(time.time()) // 60 * 60 - 600
    async with aiohttp.ClientSession() as session:
        async with serving(tmp_path, is_sandbox=False) as relay:
            await relay.logs("switched off, not contacted: binance_usdm, binance, twelve_data")
            asker = Asker(session, relay)
            before = {name: await asker.past(name, end) for name in STREAMS}
            assert before["spot_one:BTCUSDT"] != before["spot_two:BTCUSDT"]
            assert before["forex_one:EUR/USD"] != before["forex_two:EUR/USD"]

            # What has the same symbol is named by its instance, and nothing is of the providers that are off.
            symbols = await asker.get("symbols")
            assert {"BTCUSDT", "spot_two:BTCUSDT", "EUR/USD", "forex_two:EUR/USD"} <= set(symbols)
            assert not [name for name in symbols if name.startswith(("binance:", "twelve_data:"))]
            told = {one["name"]: one["uses"] for one in (await asker.get("status"))["providers"]}
            providers = ["spot_one", "forex_one", "spot_two", "forex_two"]
            assert [*told] == providers
            assert [*told.values()] == ["binance", "twelve_data"] * 2

            async with session.ws_connect(f"{relay.url}{API}/ws") as socket:
                await socket.send_json({"action": "subscribe", "streams": [f"{name}@1m" for name in STREAMS]})
                live: dict[str, dict[str, Any]] = {}
                while len(live) < len(STREAMS):
                    message = await socket.receive_json(timeout=LONGEST_WAIT_S)
                    if message["type"] == "price_update":
                        live[message["symbol"]] = message["candle"]
            assert set(live) == {"BTCUSDT", "spot_two:BTCUSDT", "EUR/USD", "forex_two:EUR/USD"}
            assert live["BTCUSDT"]["open"] != live["spot_two:BTCUSDT"]["open"]

            # A call of one is spent from its budget, and only from there.
            for name, venue in venues.items():
                assert venue.twelve_data.rest.credits.used_today > 0
                assert {call.status for call in venue.twelve_data.requests} == {200}, name
            budgets = await asker.used()
            assert (budgets["forex_one", "credits a minute"][0], budgets["forex_two", "credits a minute"][0]) == (
                610,
                55,
            )
            days = {name: budgets[f"forex_{name}", "credits a day"][1] for name in KEYS}
            for name, venue in venues.items():
                assert days[name] >= 1
                assert days[name] <= venue.twelve_data.rest.credits.used_today
            metrics = await asker.metrics()
            assert all(f'provider="{name}"' in metrics for name in providers)
            assert 'provider="binance"' not in metrics
            assert await relay.stop() == 0
        assert not [line for line in relay.err if any(key in line for key in KEYS.values())]

        # After a restart each has its own candles and its own spent credits, without a call for them.
        for venue in venues.values():
            venue.binance.requests.clear()
            venue.twelve_data.requests.clear()
        async with serving(tmp_path, is_sandbox=False) as relay:
            asker = Asker(session, relay)
            assert {name: await asker.past(name, end) for name in STREAMS} == before
            for venue in venues.values():
                calls = [*venue.binance.requests, *venue.twelve_data.requests]
                assert not [call for call in calls if "klines" in call.path or "time_series" in call.path]
            after = await asker.used()
            assert all(after[f"forex_{name}", "credits a day"][1] >= days[name] for name in KEYS)
            assert await relay.stop() == 0


async def test_what_sighup_changes_of_an_instance_and_what_needs_a_restart(
    tmp_path: Path, venues: dict[str, Sandbox]
) -> None:
    written(tmp_path, venues)
    file = tmp_path / "relay.toml"
    async with serving(tmp_path, is_sandbox=False) as relay:
        text = file.read_text()
        file.write_text(text.replace("poll_seconds = 1", "poll_seconds = 2", 1))
        assert "provider forex_one has new settings: poll_seconds" in await relay.hang_up("has new settings")
        for change, words in (
            (("uses = 'twelve_data'", "uses = 'binance'"), "restart: [providers.forex_one]"),
            (("[providers.forex_two]", "[providers.forex_three]"), "[providers.forex_three], [providers.forex_two]"),
            (("[providers.binance]\nenabled = false", ""), "restart: enabled in [providers.binance]"),
            (("[providers.spot_two]", "[providers.spot_two]\nenabled = false"), "enabled in [providers.spot_two]"),
        ):
            file.write_text(text.replace(*change, 1))
            assert words in await relay.hang_up("need a restart")
        for change, words in (
            (("poll_seconds = 1", "poll_seconds = 0"), "poll_seconds in [providers.forex_one]: 0 is out of range"),
            (("[providers.spot_one]", "[spot_one]\nws_url = 'x'\n[providers.spot_one]"), "move the keys of [spot_one]"),
            (
                ("[providers.spot_one]", "[providers.Spot]\nuses='binance'\n[providers.spot_one]"),
                "name 'Spot' is not a",
            ),
        ):
            file.write_text(text.replace(*change, 1))
            assert words in await relay.hang_up("cannot be used, so the old one stays")
        assert await relay.stop() == 0


EXCHANGES = Path(__file__).parents[1] / "plugins" / "exchanges.py"


async def test_a_setting_that_changes_the_description_needs_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    text = (
        f"database = ':memory:'\nplugins = ['{EXCHANGES}:Exchanges']\n"
        "[providers.mine]\nuses = 'exchanges'\nexchange = 'kraken'\ndepth = 3\n"
        + "".join(f"[providers.{name}]\nenabled = false\n" for name in ("binance", "twelve_data", "exchanges"))
    )
    file.write_text(text)
    async with serving(tmp_path, is_sandbox=False) as relay, aiohttp.ClientSession() as session:
        asker = Asker(session, relay)
        assert await asker.get("symbols") == ["BTC/EUR", "BTC/USD"]
        file.write_text(text.replace("'kraken'", "'coinbase'").replace("depth = 3", "depth = 4"))
        said = await relay.hang_up("need a restart")
        assert "restart: depth in [providers.mine], exchange in [providers.mine]" in said
        file.write_text(text.replace("'kraken'", "'nowhere'"))
        said = await relay.hang_up("cannot be used")
        assert "[providers.mine] candles_per_call is 0, not a whole number of at least 1" in said
        file.write_text(text.replace("depth = 3", "depth = 4\nquotes = ['JPY']"))
        await relay.hang_up("provider mine has new settings: depth, quotes")
        answer = await asker.get("history", symbol="BTC/USD", interval="1m", limit=1)
        assert (answer["provider"], answer["candles"][0]["close"]) == ("mine", 4.0)
        refused = await asker.get("history", symbol="exchanges:BTC/USD", interval="1m")
        assert refused["detail"].endswith(
            "the provider exchanges is switched off in this relay; enabled providers are mine"
        )
        assert await relay.stop() == 0


def test_plugins_on_a_terminal_shows_names_whole_and_headings_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text(
        f"plugins = ['{EXCHANGES}:Exchanges']\n"
        "[providers.second_exchange]\nuses = 'exchanges'\n[providers.binance]\nenabled = false\n"
    )
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    command = [sys.executable, "-m", "relay", "plugins"]
    with subprocess.Popen(command, cwd=tmp_path, env=CLEAN | size, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        # A terminal that nobody writes to any more is an error for who reads.
        with suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
    assert process.returncode == 0
    lines = shown.decode().replace("\r", "").split("\n")
    assert "    RELAY_SECOND_EXCHANGE_EXCHANGE" in lines
    assert "[providers.second_exchange] options: What else the exchange takes" in lines
    assert "    a table, in the file only; default: a table of retries" in lines
    assert any(line.split()[:2] == ["binance", "off"] for line in lines)


async def test_sandbox_leads_instances_to_its_stand_ins_too(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text(
        "[providers.second]\nuses = 'binance'\nrest_url = 'http://127.0.0.1:1'\n"
        "[providers.account]\nuses = 'twelve_data'\napi_key = 'a-real-key'\n"
        "[providers.binance]\nenabled = false\n"
    )
    async with (
        serving(tmp_path, env={"RELAY_SECOND_WS_URL": "ws://127.0.0.1:1"}) as relay,
        aiohttp.ClientSession() as session,
    ):
        asker = Asker(session, relay)
        ignored = await relay.logs("ignores")
        assert "rest_url in [providers.second]" in ignored
        assert "api_key in [providers.account]" in ignored
        assert "RELAY_SECOND_WS_URL" in ignored
        end = int(time.time()) // 60 * 60 - 600
        for name in ("second:BTCUSDT", "account:EUR/USD"):
            await asker.past(name, end)
        assert await relay.stop() == 0
