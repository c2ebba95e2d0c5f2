"""SIGHUP: what changes, who stays connected, and what cannot be used changes nothing."""

import asyncio
import hashlib
import logging
import os
import pty
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.app import DIRECTORY, PROVIDERS, SUPERVISORS
from relay.server.reload import Reload
from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.relay_process import CLEAN, serving
from tests.support.running_relay import Running, config_of, settings_of
from tests.support.sandbox import Sandbox

API = "/api/v1/market-data"
ALICE, BOB, CAROL = "alice-opens", "bob-opens", "carol-opens"
PAGE = "https://charts.example.org"


async def connect(session: aiohttp.ClientSession, url: str, token: str) -> aiohttp.ClientWebSocketResponse:
    socket = await session.ws_connect(f"{url}{API}/ws", headers={"Authorization": f"Bearer {token}"})
    assert (await socket.receive_json())["status"] == "connected"
    return socket


async def answers(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Say whether a client is still connected: whether it gets an answer."""
    await socket.send_json({"action": "ping"})
    message = await socket.receive(LONGEST_WAIT_S)
    return message.type is aiohttp.WSMsgType.TEXT


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[Any, Any]:
    message = await socket.receive(LONGEST_WAIT_S)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra


async def status_of(session: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with session.get(f"{url}{API}/symbols", headers=headers) as answer:
        return answer.status


async def test_reload_reads_files_of_secrets_again(tmp_path: Path) -> None:
    file, env = tmp_path / "tokens", {"RELAY_TOKENS_FILE": "tokens"}
    file.write_text(f"{ALICE}\n{BOB}\n")
    async with serving(tmp_path, "--database", ":memory:", env=env) as relay, aiohttp.ClientSession() as session:
        alice, bob = await connect(session, relay.url, ALICE), await connect(session, relay.url, BOB)
        # As a container's secret changes: another file has the name.
        (tmp_path / "new").write_text(f"{ALICE}\n{CAROL}\n")
        (tmp_path / "new").replace(file)
        await relay.hang_up("clients disconnected because their token was removed: 1")
        assert (await close_of(bob))[0] == 4003
        assert await answers(alice)
        await connect(session, relay.url, CAROL)
        file.unlink()
        assert "RELAY_TOKENS_FILE: cannot read tokens: No such file" in await relay.hang_up("the old one stays in use")
        assert await answers(alice)
        assert ALICE not in "\n".join(relay.err)


async def test_reload_keeps_clients_whose_token_stands_and_closes_the_others(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f"[tokens]\nalice = '{ALICE}'\nbob = '{BOB}'\n")
    async with serving(tmp_path, "--database", ":memory:") as relay, aiohttp.ClientSession() as session:
        alice, bob = await connect(session, relay.url, ALICE), await connect(session, relay.url, BOB)

        # Bob's token is gone, alice has another name and a hash, carol is new, and so is a page.
        digest = "sha256:" + hashlib.sha256(ALICE.encode()).hexdigest()
        file.write_text(f"allowed_origins = ['{PAGE}']\n[tokens]\nalicia = '{digest}'\ncarol = '{CAROL}'\n")
        assert "tokens: 2; clients disconnected because their token was removed: 1" in await relay.hang_up(
            "was read again"
        )
        assert await close_of(bob) == (4003, "token revoked")
        assert await answers(alice)
        carol = await connect(session, relay.url, CAROL)
        assert await status_of(session, relay.url, Authorization=f"Bearer {BOB}") == 401
        assert await status_of(session, relay.url, Authorization=f"Bearer {CAROL}", Origin=PAGE) == 200

        # Broken files change nothing, and each says why without a token.
        for content, words in (
            ("[tokens]\nalice = ", "TOML"),
            (f"max_clients = 0\n[tokens]\nalice = '{ALICE}'", "max_clients"),
            ("[tokens]\nalice = 'sha256:xyz'", "64"),
            ("max_clients = 5", "no tokens any more"),
        ):
            file.write_text(content)
            assert words in await relay.hang_up("cannot be used, so the old one stays")
        assert await answers(alice)
        assert await answers(carol)
        assert await status_of(session, relay.url, Authorization=f"Bearer {CAROL}") == 200

        # What cannot change while it runs is named.
        file.write_text(f"flush_ms = 7\nplugins = ['kraken']\n[tokens]\nalice = '{ALICE}'\n[kraken]\npairs='all'")
        assert "restart: flush_ms, plugins, [kraken]" in await relay.hang_up("need a restart")
        assert await close_of(carol) == (4003, "token revoked")
        assert await answers(alice)
        assert await relay.stop() == 0
    printed = "\n".join([*relay.out, *relay.err])
    assert not any(token in printed for token in (ALICE, BOB, CAROL))


async def test_tokens_that_appear_end_clients_that_came_without(tmp_path: Path) -> None:
    async with serving(tmp_path, "--database", ":memory:") as relay, aiohttp.ClientSession() as session:
        anybody = await connect(session, relay.url, "")
        (tmp_path / "relay.toml").write_text(f"tokens = ['{ALICE}']\nmax_requests_per_second_per_address = 0.1")
        assert "tokens: 1; clients disconnected because their token was removed: 1" in await relay.hang_up(
            "was read again"
        )
        assert await close_of(anybody) == (4003, "token revoked")
        headers = {"Authorization": f"Bearer {ALICE}"}
        statuses = [await status_of(session, relay.url, **headers) for _ in range(3)]
        assert statuses[-1] == 429  # the new limit holds as well
        assert await relay.stop() == 0


WRONG_KEY, OTHER_KEY = "wrong-key-0123456789", "other-key-0123456789"


def hang_up(relay: Running, sandbox: Sandbox, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Let a relay read a configuration whose table of Twelve Data was `before` and is `after` now."""
    configs = [config_of(settings_of(sandbox, {"twelve_data": table})) for table in (before, after)]
    Reload(relay.app, configs[0], lambda: configs[1], None)()


async def test_a_new_key_ends_the_refusal_of_the_old_one(
    sandbox: Sandbox, relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    relay = await relay_with(tables={"twelve_data": {"api_key": WRONG_KEY}})
    client = await relay.connect()
    await client.ask("subscribe", streams=["EUR/USD@1m"])
    refused = await client.until(lambda message: message["type"] == "error" or message.get("status") == "error")
    assert "refused" in refused["message"]
    hang_up(relay, sandbox, {"api_key": WRONG_KEY}, {})
    other = await relay.connect()
    await eventually(lambda: relay.app[PROVIDERS]["twelve_data"].refusal is None)

    # Its list of symbols is asked for anew as well.
    await eventually(lambda: any(one.instrument.asset_class == "forex" for one in relay.app[DIRECTORY].everything()))
    await other.subscribe("EUR/USD@1m")
    await other.update()
    assert (await relay.get("history", symbol="EUR/USD", interval="1h", limit=2)).status == 200
    assert "provider twelve_data has new settings: api_key" in caplog.text
    said = [caplog.text, str(client.received), str(other.received)]
    assert not [text for text in said if WRONG_KEY in text or sandbox.twelve_data.api_key in text]


async def test_another_key_takes_over_without_a_lost_candle_or_a_lost_stream(
    sandbox: Sandbox, relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("EUR/USD@1m")
    await client.update()
    before = {"api_key": sandbox.twelve_data.api_key}
    supervisor = relay.app[SUPERVISORS]["twelve_data"]
    await client.seen("status", status="connected", symbol="EUR/USD")
    heard = len(client.received)
    # Who changes a key has both for a while: a poll may be under way with the old one.
    keys = {before["api_key"], OTHER_KEY}
    monkeypatch.setattr(
        sandbox.twelve_data.rest,
        "knows_key",
        lambda request: request.headers.get("Authorization", "").removeprefix("apikey ") in keys,
    )
    hang_up(relay, sandbox, before, {"api_key": OTHER_KEY})
    await eventually(lambda: supervisor.attempts.again["settings"] == 1 and supervisor.open_feeds == 1)
    keys.remove(before["api_key"])
    polls = len(sandbox.twelve_data.requests)
    await eventually(lambda: len(sandbox.twelve_data.requests) >= polls + 2)
    await client.settle()
    assert {call.status for call in sandbox.twelve_data.requests[polls:]} == {200}
    states = [message["status"] for message in client.received[heard:] if message["type"] == "status"]
    assert not {"error", "reconnecting", "connecting"} & set(states)
    assert relay.app[PROVIDERS]["twelve_data"].refusal is None


async def test_every_setting_of_a_provider_is_taken_over(
    sandbox: Sandbox, relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("EUR/USD@1m", "BTCUSDT@1m")
    await client.update(symbol="EUR/USD")
    await client.update(symbol="BTCUSDT")
    async with Sandbox(pace_s=0.1, forex_always_open=True) as other:
        after = settings_of(other, {"twelve_data": {"mode": "stream", "credits_per_minute": 55}})
        configs = config_of(settings_of(sandbox)), config_of(after)
        Reload(relay.app, configs[0], lambda: configs[1], None)()
        await eventually(lambda: other.twelve_data.subscribed == ["EUR/USD"])
        await eventually(lambda: other.binance.subscribed)
        await eventually(lambda: not sandbox.binance.subscribed)
        await client.update(symbol="BTCUSDT")
        budgets = (await relay.get("status")).body["budgets"]
        assert 55 in [one["limit"] for one in budgets if one["name"] == "credits a minute"]
        await relay.close()
    assert "provider binance has new settings: rest_url, ws_url" in caplog.text
    assert "twelve_data has new settings: credits_per_minute, mode, rest_url, ws_url" in caplog.text


async def test_provider_settings_that_cannot_be_used_change_nothing(
    sandbox: Sandbox, relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    relay = await relay_with()
    provider = relay.app[PROVIDERS]["twelve_data"]
    settings = provider.settings
    hang_up(relay, sandbox, {}, {"poll_seconds": 0, "api_key": OTHER_KEY})
    assert "poll_seconds in [twelve_data]" in caplog.text
    assert "the old one stays" in caplog.text
    assert provider.settings is settings
    hang_up(relay, sandbox, {}, {})
    assert provider.settings is settings
    assert OTHER_KEY not in caplog.text


async def test_configuration_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("max_streams = 7")
    async with serving(tmp_path) as served:
        file.rename(tmp_path / "away")
        said = await served.hang_up("relay.toml does not exist any more; restart the relay to run without it")
        assert "the old one stays" in said
        (tmp_path / "away").rename(file)
        await served.hang_up("the configuration was read again")


async def test_an_instance_of_a_provider_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("max_streams = 7")
    async with serving(tmp_path) as served:
        file.write_text('max_streams = 8\n[providers.second]\nuses = "binanse"\n')
        said = await served.hang_up("there is no provider 'binanse'")
        assert "the old one stays" in said
        assert "did you mean binance?" in said
        file.write_text("max_streams = 8\n[kraken]\n")
        await served.hang_up("unknown key 'kraken' in the configuration file")
        # Such a table may belong to the plugin that is named with it.
        file.write_text('plugins = ["kraken"]\n[kraken]\n')
        assert "need a restart: plugins, [kraken]" in await served.hang_up("need a restart")


async def test_closing_the_terminal_ends_the_relay(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.executable, [sys.executable, '-m', 'relay', 'serve', '--sandbox', '--port', '0'])",
        stdin=terminal, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path, env=CLEAN,
    )  # fmt: skip
    os.close(terminal)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONGEST_WAIT_S):
            assert b"serves" in await process.stdout.readline()
            os.close(main)
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
