"""The life of `relay serve`: a real process on a real port, stopped by signals, and what keeps it from starting."""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from relay.cli import main
from tests.support import slow_machine
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import serving
from tests.support.sandbox import Sandbox

PREFIX = "/api/v1/market-data"
SAYS = re.compile(r"market-relay serves (http://\S+)")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "TWELVE_DATA_"))}
WITHOUT_UVLOOP = (
    "import sys; sys.modules['uvloop'] = None; sys.argv[0] = 'relay'; from relay.cli import main; main()",
)


class Served:
    """A `relay serve` process that accepts connections."""

    def __init__(self, process: asyncio.subprocess.Process, line: str) -> None:
        self.process = process
        self.line = line
        found = SAYS.match(line)
        assert found, line
        self.url = found[1]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return exit code, the rest of standard output, and standard error."""
        self.process.send_signal(number)
        async with asyncio.timeout(LONGEST_WAIT_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start `relay serve --sandbox` on a free port in an empty directory; what still runs is killed."""
    processes = []

    async def start(*arguments: str, env: dict[str, str] | None = None, command: tuple[str, ...] = ()) -> Served:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(("-c", *command) if command else ("-m", "relay")),
            *("serve", "--sandbox", "--port", "0", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env={**CLEAN, **(env or {})},
        )
        processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(LONGEST_WAIT_S):
            line = (await process.stdout.readline()).decode()
        return Served(process, line)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refused(cwd: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run a `relay serve` that cannot start; return its one line on standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "serve", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=cwd, env={**CLEAN, **(env or {})},
    )  # fmt: skip
    async with asyncio.timeout(LONGEST_WAIT_S):
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b""), err.decode()
    lines = err.decode().splitlines()
    assert len(lines) == 1, err.decode()
    assert lines[0].startswith("relay: ")
    return lines[0]


@pytest.mark.parametrize("command", [(), WITHOUT_UVLOOP])
async def test_log_that_nobody_reads_holds_up_no_client_and_no_end(tmp_path: Path, command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(4096)):
            pass
    os.set_blocking(writer, True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(("-c", *command) if command else ("-m", "relay")),
        *("serve", "--sandbox", "--port", "0", "--log-level", "debug"),
        stdout=asyncio.subprocess.PIPE,
        stderr=writer,
        cwd=tmp_path,
        env=CLEAN,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LONGEST_WAIT_S):
            found = SAYS.match((await process.stdout.readline()).decode())
            assert found is not None
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{found[1]}{PREFIX}/ws") as socket:
                await socket.send_json({"action": "subscribe", "symbol": "BTCUSDT", "interval": "1s"})
                async for message in socket:
                    if json.loads(message.data)["type"] == "price_update":
                        break
        process.terminate()
        async with asyncio.timeout(LONGEST_WAIT_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(reader)
        os.close(writer)


StartHere = Callable[..., str]


@pytest.fixture
def start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartHere:
    """As `refused`, but within this process, which is faster."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)

    def start(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["serve", *arguments])
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith("relay: ")
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr.rstrip()

    return start


async def connect(session: aiohttp.ClientSession, served: Served, *streams: str) -> aiohttp.ClientWebSocketResponse:
    socket = await session.ws_connect(f"{served.url}{PREFIX}/ws")
    assert (await socket.receive_json())["status"] == "connected"
    if streams:
        await socket.send_json({"action": "subscribe", "streams": list(streams)})
        said: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                while not said or said[-1]["type"] != "price_update":
                    said.append(await socket.receive_json())
        except TimeoutError:
            raise TimeoutError(f"no price, only {said}") from None
    return socket


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    while True:
        message = await socket.receive(LONGEST_WAIT_S)
        if message.type is aiohttp.WSMsgType.CLOSE:
            return message.data, message.extra or ""
        if message.type is not aiohttp.WSMsgType.TEXT:
            return socket.close_code, ""


def assert_quiet(err: str) -> None:
    lines = slow_machine.other_lines(err.splitlines())
    assert not [line for line in lines if re.search(r" (WARNING|ERROR|CRITICAL) |Traceback|Exception", line)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_closes_clients_with_1001_and_exits_0_without_a_warning(
    serve: Serve, number: signal.Signals
) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        sockets = [await connect(session, served, "BTCUSDT@1s", "EUR/USD@1m") for _ in range(3)]
        ends = [asyncio.create_task(close_of(socket)) for socket in sockets]
        code, out, err = await served.stop(number)
        assert [await end for end in ends] == [(1001, "server shutdown")] * 3
    assert (code, out) == (0, "")
    assert_quiet(err)


async def test_shutdown_with_many_clients_and_one_that_never_reads(serve: Serve) -> None:
    served = await serve()
    host, port = served.url.removeprefix("http://").split(":")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets = await asyncio.gather(*(connect(session, served, "BTCUSDT@1s") for _ in range(100)))
        with socket.create_connection((host, int(port))) as mute:
            mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            mute.sendall(
                f"GET {PREFIX}/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            text = b'{"action":"subscribe","symbol":"BTCUSDT","interval":"1s","bars":5000}'
            mute.sendall(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
            # The snapshot fills what the relay and the kernel hold for it.
            await close_after_snapshot(session, served)
            ends = [asyncio.create_task(close_of(socket)) for socket in sockets]
            code, _, err = await served.stop()
            assert {await end for end in ends} == {(1001, "server shutdown")}
    assert code == 0
    assert_quiet(err)


async def close_after_snapshot(session: aiohttp.ClientSession, served: Served) -> None:
    other = await connect(session, served)
    await other.send_json({"action": "subscribe", "symbol": "BTCUSDT", "interval": "1s", "bars": 5000})
    while (await other.receive_json())["type"] != "snapshot":
        pass
    await other.close()


async def test_shutdown_before_anybody_came_is_quiet_too(serve: Serve) -> None:
    code, out, err = await (await serve("--log-level", "warning")).stop()
    assert (code, out, slow_machine.other_lines(err.splitlines())) == (0, "", [])


async def test_shutdown_during_a_request_of_history(serve: Serve) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        url = f"{served.url}{PREFIX}/history?symbol=BTCUSDT&interval=1m&limit=5000"
        requests = [asyncio.create_task(session.get(url)) for _ in range(3)]
        await asyncio.sleep(0)
        code, _, err = await served.stop()
        await asyncio.gather(*requests, return_exceptions=True)
    assert code == 0
    assert_quiet(err)


async def test_shutdown_while_requests_wait_for_a_provider(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, aiohttp.ClientSession() as session:
        env = {"RELAY_BINANCE_WS_URL": sandbox.binance.ws_url, "RELAY_BINANCE_REST_URL": sandbox.binance.rest_url}
        async with serving(tmp_path, "--database", ":memory:", env=env, is_sandbox=False) as relay:
            await (await session.get(f"{relay.url}{PREFIX}/symbols")).read()
            sandbox.binance.faults.delay_rest(60)
            url = f"{relay.url}{PREFIX}/history?symbol=BTCUSDT&interval=1m"
            requests = [asyncio.create_task(session.get(url)) for _ in range(3)]
            async with session.ws_connect(f"{relay.url}{PREFIX}/ws") as socket:
                await socket.send_json({"action": "subscribe", "symbol": "ETHUSDT", "interval": "1m", "bars": 500})
                await socket.send_json({"action": "ping"})
                while (await socket.receive_json())["type"] != "pong":
                    pass
                assert not any(request.done() for request in requests)
                assert await relay.stop() == 0
            await asyncio.gather(*requests, return_exceptions=True)
        assert not [line for line in relay.err if "Traceback" in line]
        sandbox.binance.faults.clear()


async def test_it_works_without_uvloop(serve: Serve) -> None:
    served = await serve(command=WITHOUT_UVLOOP)
    async with aiohttp.ClientSession() as session:
        socket = await connect(session, served, "BTCUSDT@1s")
        end = asyncio.create_task(close_of(socket))
        code, _, err = await served.stop()
        assert await end == (1001, "server shutdown")
    assert code == 0
    assert_quiet(err)


async def test_sandbox_ignores_no_wrong_value(tmp_path: Path) -> None:
    line = await refused(tmp_path, "--sandbox", "--port", "0", env={"RELAY_BINANCE_WS_URL": "stream.binance.com"})
    assert line.startswith("relay: RELAY_BINANCE_WS_URL: 'stream.binance.com' is not a list of addresses")


async def test_sandbox_goes_before_file_and_environment(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text(
        '[binance]\nws_url = "ws://127.0.0.1:1"\nrest_url = "http://127.0.0.1:1"\n'
        '[twelve_data]\napi_key = "of the file"\nrest_url = "http://127.0.0.1:1"\ncredits_per_minute = 1\n'
    )
    served = await serve(
        "--forex-always-open",
        env={
            "RELAY_BINANCE_WS_URL": "ws://127.0.0.1:1",
            "RELAY_BINANCE_REST_URL": "http://127.0.0.1:1",
            "RELAY_TWELVE_DATA_REST_URL": "http://127.0.0.1:1",
            "TWELVE_DATA_API_KEY": "of the environment",
        },
    )
    async with aiohttp.ClientSession() as session:
        socket = await connect(session, served, "BTCUSDT@1s")
        await socket.close()
        socket = await connect(session, served, "EUR/USD@1m")
        await socket.close()
        url = f"{served.url}{PREFIX}/history?symbol=EUR/USD&interval=1h&limit=3"
        async with session.get(url) as answer:
            assert len((await answer.json())["candles"]) == 3
    code, _, err = await served.stop()
    assert code == 0
    assert_quiet(err)
    assert "127.0.0.1:1" not in err


async def test_database_is_kept_from_run_to_run(serve: Serve, tmp_path: Path) -> None:
    for _ in range(2):
        served = await serve("--database", "candles.db")
        url = f"{served.url}{PREFIX}/history?symbol=BTCUSDT&interval=1h&limit=10"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert len((await answer.json())["candles"]) == 10
        assert (await served.stop())[0] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "candles.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_second_relay_on_a_database_is_refused_until_the_first_is_gone(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "other.db").symlink_to("candles.db")
    first = await serve("--database", "candles.db")
    for name in ("candles.db", "other.db"):
        line = await refused(tmp_path, "--sandbox", "--port", "0", "--database", name)
        who = f"the relay with process id {first.process.pid} uses it"
        assert line == f"relay: database {name}: {who}; stop it or name another file"
    first.process.kill()
    await first.process.wait()
    second = await serve("--database", "other.db")
    assert (await second.stop())[0] == 0


async def test_sandbox_leaves_the_database_of_the_configuration_alone(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text('database = "real.db"\n')
    served = await serve(env={"RELAY_DATABASE": "real.db"})
    url = f"{served.url}{PREFIX}/history?symbol=BTCUSDT&interval=1h&limit=10"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert len((await answer.json())["candles"]) == 10
    assert (await served.stop())[0] == 0
    assert os.listdir(tmp_path) == ["relay.toml"]


# -- what keeps it from starting -------------------------------------------------------------------


async def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = await refused(tmp_path, "--sandbox", "--port", str(port))
    assert f"127.0.0.1 port {port}: Address already in use; choose another with --port" in line


async def test_host_that_does_not_exist(tmp_path: Path) -> None:
    line = await refused(tmp_path, "--sandbox", "--port", "0", "--host", "192.0.2.1", "--insecure")
    assert "192.0.2.1 port 0: Cannot assign requested address; choose another with --host" in line
    line = await refused(tmp_path, "--sandbox", "--port", "0", "--host", "nowhere.invalid", "--insecure")
    assert line.endswith("; choose another with --host")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot = 8001", ("'prot'", "port")),
        ("[binace]\nws_url = 'ws://x'", ("'binace'", "binance")),
        ("[binance]\nurl = 'ws://x'", ("'url'", "[binance]", "ws_url")),
        ("port = 70000", ("port", "70000", "65535")),
        ("port = inf", ("port", "inf")),
        ("port = 'http'", ("port", "'http'")),
        ("port = true", ("port", "True")),
        ("linger_seconds = nan", ("linger_seconds", "nan")),
        ("log_level = 'loud'", ("log_level", "'loud'", "debug, info, warning, error")),
        ("allowed_origins = ['example.org']", ("allowed_origins", "https://")),
        ("[twelve_data]\npoll_seconds = 0", ("poll_seconds", "0")),
        ("[binance]\nws_url = 'stream.example'", ("ws_url", "wss://")),
        ("port = ", ("TOML", "relay.toml")),
        ("\x00", ("TOML", "relay.toml")),
    ],
)
def test_bad_configuration_file(start_here: StartHere, tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    (tmp_path / "relay.toml").write_text(content)
    line = start_here("--database", ":memory:")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config", "nowhere.toml"), ("nowhere.toml", "No such file")),
        (("--config", "."), ("directory",)),
        (("--port", "70000"), ("--port", "70000", "65535")),
        (("--linger-seconds", "-1"), ("--linger-seconds", "-1", "3600")),
        (("--host", "0.0.0.0"), ("'0.0.0.0'", "tokens", "--insecure")),
        (("--host", "::"), ("'::'", "tokens")),
        (("--database", "nowhere/relay.db"), ("nowhere/relay.db", "directory")),
        (("--port", "http"), ("--port", "'http'")),
        (("--log-level", "loud"), ("--log-level", "'loud'", "debug")),
        (("--max-clients", "0"), ("--max-clients", "'0'", "1")),
        (("--database", "."), ("database .", "cannot be opened")),
    ],
)
def test_bad_flag(start_here: StartHere, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    line = start_here("--sandbox", "--port", "0", *arguments)
    assert all(word in line for word in words), line


async def test_secrets_of_the_configuration_are_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text("tokens = 'opensesame'\n[twelve_data]\napi_key = 17171717\n")
    line = await refused(tmp_path, "--database", ":memory:")
    assert "api_key" in line
    assert "17171717" not in line
    assert "opensesame" not in line


async def test_environment_names_the_variable(tmp_path: Path) -> None:
    line = await refused(tmp_path, "--database", ":memory:", env={"RELAY_MAX_CLIENTS": "none"})
    assert "RELAY_MAX_CLIENTS" in line
    assert "'none'" in line


async def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "relay.db").write_text("this is a diary, and not a short one " * 50)
    line = await refused(tmp_path, "--sandbox", "--port", "0", "--database", "relay.db")
    assert "relay.db" in line
    assert "database" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_database_without_permission(tmp_path: Path) -> None:
    place = tmp_path / "sealed"
    place.mkdir(mode=0o500)
    line = await refused(tmp_path, "--sandbox", "--port", "0", "--database", "sealed/relay.db")
    assert "sealed/relay.db" in line


def test_helper_matches_the_line_with_an_address() -> None:
    found: Any = SAYS.match("market-relay serves http://[::1]:8000 (sandbox: made-up prices)")
    assert found[1] == "http://[::1]:8000"
