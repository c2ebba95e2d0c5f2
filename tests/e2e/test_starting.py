"""What `relay serve` does and says as it starts: where it listens, likely mistakes, how many files it may open."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.client import RelayClient, State
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.relay_process import serving


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


async def is_alive(url: str) -> bool:
    # A connection that is one too many is answered and closed, also before it has asked.
    with contextlib.suppress(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz") as answer:
            return answer.status == 200
    return False


async def test_localhost_is_both_loopback_addresses(tmp_path: Path) -> None:
    async with serving(tmp_path, "--host", "localhost") as served:
        port = served.url.rpartition(":")[2]
        assert served.url == f"http://127.0.0.1:{port}"
        assert await is_alive(served.url)
        if has_ipv6():
            assert await is_alive(f"http://[::1]:{port}")
        assert await served.stop() == 0


@pytest.mark.skipif(not has_ipv6(), reason="the machine has no ::1")
async def test_an_address_in_brackets(tmp_path: Path) -> None:
    async with serving(tmp_path, "--host", "[::1]") as served:
        assert served.url.startswith("http://[::1]:")
        assert await is_alive(served.url)


OUT_OF_FILES = """
import asyncio, logging, os, resource
from relay.server.open_files import DescriptorWatch

logging.basicConfig(format="%(levelname)s %(fields)s %(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))

async def main():
    with DescriptorWatch(10_000, look_s=0.05):
        held = []
        for _ in range(2):
            try:
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                await asyncio.sleep(0.5)
            while held:
                os.close(held.pop())
            await asyncio.sleep(0.2)

asyncio.run(main())
"""


def test_the_limit_of_open_files_is_raised_and_running_out_of_them_is_one_line() -> None:
    said = subprocess.run([sys.executable, "-c", OUT_OF_FILES], capture_output=True, text=True, check=True).stderr
    few, none_left = said.splitlines()
    assert few.startswith("WARNING {'event': 'open_files_limited', 'limit': 128} max_clients is 10000, and the system")
    assert none_left.startswith(
        "ERROR {'event': 'open_files_used_up', 'limit': 128} this process has reached its limit"
    )


async def test_too_many_connections_leave_files_to_the_relay(tmp_path: Path) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))"
    async with serving(tmp_path, "--log-format", "json", prepare=few) as served:
        assert json.loads(await served.logs("open_files_limited"))["limit"] == 90
        port = int(served.url.rpartition(":")[2])
        with contextlib.ExitStack() as held:
            for _ in range(100):
                held.enter_context(socket.create_connection(("127.0.0.1", port)))
            await served.logs("HTTP connections are refused")
        # It reads in its own time that they are closed.
        await eventually(lambda: is_alive(served.url))
        assert not [line for line in served.err if "open_files_used_up" in line or "Too many open" in line]
        assert await served.stop() == 0


async def test_a_relay_with_very_few_files_serves_some(tmp_path: Path) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    async with serving(tmp_path, prepare=few) as served:
        assert await is_alive(served.url)
        async with RelayClient(served.url) as client:
            assert (await client.history("BTCUSDT", "1h", limit=1)).candles


async def test_a_key_that_is_not_set_is_said_at_start(tmp_path: Path) -> None:
    env = {"RELAY_BINANCE_REST_URL": "http://127.0.0.1:1", "RELAY_BINANCE_WS_URL": "ws://127.0.0.1:1"}
    async with serving(tmp_path, "--database", ":memory:", is_sandbox=False, env=env) as served:
        await served.logs("Twelve Data needs a key: set RELAY_TWELVE_DATA_API_KEY, or api_key in [twelve_data]")


async def test_what_is_likely_a_mistake_is_said_at_start_and_when_it_is_new(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text("[tokens]\nalice = 'short'\n")
    async with serving(tmp_path, env={"RELAY_PROT": "8001", "RELAY_PORT_80_TCP": "tcp://10.0.0.1:80"}) as served:
        await served.logs("the token of alice has fewer than 16 characters")
        await served.logs("RELAY_PROT; did you mean RELAY_PORT?")
        config.write_text("[tokens]\nalice = 'short'\nbob = 'short too'\n")
        await served.hang_up("the configuration was read again")
        await served.logs("the token of bob has fewer")
        told = [line for line in served.err if "config_mistake" in line or "fewer than" in line or "no setting" in line]
        assert len(told) == 3
        assert not [line for line in served.err if "short'" in line or "8001" in line or "10.0.0.1" in line]


async def test_the_sandbox_says_what_it_ignores_and_takes_the_rest(tmp_path: Path) -> None:
    config = "database = 'real.db'\n[binance]\nws_url = 'wss://opensesame'\n[twelve_data]\npoll_seconds = 7\n"
    (tmp_path / "relay.toml").write_text(config)
    (tmp_path / "key").write_text("opensesame\n")
    env = {
        "TWELVE_DATA_API_KEY": "opensesame",
        "RELAY_TWELVE_DATA_API_KEY_FILE": "key",
        "RELAY_TWELVE_DATA_CREDITS_PER_DAY": "55",
        "RELAY_CLUSTER_NATS": "nats://127.0.0.1:9",
    }
    async with serving(tmp_path, "--log-format", "json", env=env) as served:
        assert "share none of them" in await served.logs("sandbox_cluster")
        said = json.loads(await served.logs("sandbox_ignores"))
        assert said["settings"] == [
            "RELAY_TWELVE_DATA_API_KEY_FILE",
            "RELAY_TWELVE_DATA_CREDITS_PER_DAY",
            "TWELVE_DATA_API_KEY",
            "database in relay.toml",
            "ws_url in [binance]",
        ]
        async with RelayClient(served.url) as client:
            # The key of the stand-in is in use, not the real one.
            assert (await client.history("EUR/USD", "1h", limit=1)).candles
        assert not [line for line in served.err if "opensesame" in line or "sandbox_hours" in line]


SUNDAY = "import time; real = time.time; ahead = 1_764_504_000 - real(); time.time = lambda: real() + ahead"
"""Noon of 30 November 2025."""


@pytest.mark.parametrize(("environ", "is_closed"), [({}, True), ({"RELAY_TWELVE_DATA_MARKET_HOURS": "always"}, False)])
async def test_currency_pairs_of_the_sandbox_keep_the_hours_of_their_market(
    tmp_path: Path, environ: dict[str, str], is_closed: bool
) -> None:
    async with serving(tmp_path, always_open=False, env=environ, prepare=SUNDAY) as served:
        await served.logs("currency pairs do not trade at weekends")
        async with RelayClient(served.url) as client:
            await client.subscribe("EUR/USD@1m")
            async with asyncio.timeout(LONGEST_WAIT_S):
                async for message in client:
                    if isinstance(message, State) and message.status in ("connected", "market_closed"):
                        assert (message.status == "market_closed") == is_closed, message
                        break


def test_the_flag_of_the_sandbox_is_for_it_only() -> None:
    result = CliRunner().invoke(main, ["serve", "--forex-always-open"])
    assert (result.exit_code, "needs --sandbox" in result.output) == (2, True)
