"""`relay health`: what a container asks to find out whether its relay serves."""

import asyncio

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from relay.commands.health import command
from tests.support.free_ports import free_port
from tests.support.loopback_server import loopback_server
from tests.support.running_relay import Running

PROBLEM = {"title": "internal", "detail": "the store cannot be used: the disk is full"}


async def health(*words: str, **environment: str) -> Result:
    clean: dict[str, str | None] = {"RELAY_URL": None, "RELAY_HOST": None, "RELAY_PORT": None, "RELAY_TOKENS": None}
    return await asyncio.to_thread(CliRunner().invoke, command, words, env=clean | environment)


@pytest.fixture
def full_disk() -> web.Application:
    """What a relay answers that cannot write."""

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        return web.json_response(PROBLEM, status=503)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


@pytest.mark.real_time  # The command runs in a thread.
async def test_it_finds_the_relay_by_its_configuration(relay: Running) -> None:
    port = relay.url.rpartition(":")[2]
    for words, said in (((), "healthy\n"), (("--ready",), "ready\n")):
        # It listens on all addresses there, and one of them is this machine's own.
        found = await health(*words, RELAY_HOST="0.0.0.0", RELAY_PORT=port)
        assert (found.exit_code, found.output) == (0, said)


@pytest.mark.real_time
async def test_a_relay_with_a_full_disk_is_healthy_and_not_ready(full_disk: web.Application) -> None:
    async with loopback_server(full_disk) as host:
        assert (await health("--url", f"http://{host}")).exit_code == 0
        found = await health("--url", f"http://{host}", "--ready")
    assert (found.exit_code, found.output) == (1, f"Error: http://{host}: {PROBLEM['detail']}\n")


@pytest.mark.real_time
async def test_nobody_there_is_one_line() -> None:
    port = free_port()
    found = await health(RELAY_PORT=str(port))
    assert (found.exit_code, found.output) == (1, f"Error: http://127.0.0.1:{port}: no answer (Connection refused)\n")


@pytest.mark.real_time  # The command runs in a thread.
async def test_it_takes_an_address_as_other_commands_do(full_disk: web.Application) -> None:
    async with loopback_server(full_disk) as host:
        assert (await health(RELAY_URL=host)).exit_code == 0
    for url, said in (
        ("ftp://x", "is not an address such as http://"),
        ("http://a:1,http://b:1", "has several addresses; a health check asks one relay"),
    ):
        found = await health(RELAY_URL=url)
        assert (found.exit_code, said in found.output) == (2, True), found.output


@pytest.mark.real_time  # The command runs in a thread.
async def test_a_secret_that_is_being_changed_makes_no_relay_unhealthy(relay: Running) -> None:
    port = relay.url.rpartition(":")[2]
    found = await health(RELAY_HOST="127.0.0.1", RELAY_PORT=port, RELAY_TOKENS_FILE="/gone/tokens")
    assert (found.exit_code, found.output) == (0, "healthy\n")
