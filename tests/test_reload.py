"""SIGHUP at a real `relay serve`: what changes, who stays connected, and what cannot be used changes nothing."""

import asyncio
import hashlib
import os
import pty
import sys
from pathlib import Path
from typing import Any

import aiohttp

from tests.serving import CLEAN, serving

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
    message = await socket.receive(10)
    return message.type is aiohttp.WSMsgType.TEXT


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[Any, Any]:
    message = await socket.receive(10)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra


async def status_of(session: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with session.get(f"{url}{API}/symbols", headers=headers) as answer:
        return answer.status


async def test_reload_keeps_clients_whose_token_stands_and_closes_the_others(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f"[tokens]\nalice = '{ALICE}'\nbob = '{BOB}'\n")
    async with serving(tmp_path, "--database", ":memory:") as relay, aiohttp.ClientSession() as session:
        alice, bob = await connect(session, relay.url, ALICE), await connect(session, relay.url, BOB)

        # Bob's token is gone, alice has another name and a hash, carol is new, and so is a page.
        digest = "sha256:" + hashlib.sha256(ALICE.encode()).hexdigest()
        file.write_text(f"allowed_origins = ['{PAGE}']\n[tokens]\nalicia = '{digest}'\ncarol = '{CAROL}'\n")
        assert "tokens: 2; clients sent away because theirs is gone: 1" in await relay.hang_up("was read again")
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
            assert words in await relay.hang_up("cannot be used; the one before stays")
        assert await answers(alice)
        assert await answers(carol)
        assert await status_of(session, relay.url, Authorization=f"Bearer {CAROL}") == 200

        # What cannot change while it runs is named.
        file.write_text(f"flush_ms = 7\n[tokens]\nalice = '{ALICE}'\n[binance]\nrest_url='http://x'")
        assert "restart: flush_ms, [binance]" in await relay.hang_up("needs a restart")
        assert await close_of(carol) == (4003, "token revoked")
        assert await answers(alice)
        assert await relay.stop() == 0
    printed = "\n".join([*relay.out, *relay.err])
    assert not any(token in printed for token in (ALICE, BOB, CAROL))


async def test_tokens_that_appear_end_clients_that_came_without(tmp_path: Path) -> None:
    async with serving(tmp_path, "--database", ":memory:") as relay, aiohttp.ClientSession() as session:
        anybody = await connect(session, relay.url, "")
        (tmp_path / "relay.toml").write_text(f"tokens = ['{ALICE}']\nmax_requests_per_second_per_address = 0.1")
        assert "tokens: 1; clients sent away because theirs is gone: 1" in await relay.hang_up("was read again")
        assert await close_of(anybody) == (4003, "token revoked")
        headers = {"Authorization": f"Bearer {ALICE}"}
        statuses = [await status_of(session, relay.url, **headers) for _ in range(3)]
        assert statuses[-1] == 429  # the new limit holds as well
        assert await relay.stop() == 0


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
        async with asyncio.timeout(30):
            assert b"serves" in await process.stdout.readline()
            os.close(main)
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
