"""The compose files: understood by their schema and by Prometheus, with mounts, variables and words that exist."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import click
import pytest
import yaml

from providers import BUILTIN
from relay.cli import main
from relay.config.environment import names_of_variable
from relay.config.provider_settings import setting_variables
from relay.config.settings import SETTINGS, Config
from relay.plugins.loader import PluginHost
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.free_ports import free_port
from tests.support.running_relay import Running
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "relay" / "packaging" / "compose"
FILES = sorted(FOLDER.glob("compose*.yaml"))
GUIDE = (ROOT / "relay" / "web" / "facades" / "README.md").read_text(encoding="utf-8")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def services() -> dict[str, dict[str, Any]]:
    """Return the services of all files by name; what several say of one is joined."""
    found: dict[str, dict[str, Any]] = {}
    for path in FILES:
        for name, service in read(path.name)["services"].items():
            joined = found.setdefault(name, {})
            for key, value in service.items():
                joined[key] = {**joined.get(key, {}), **value} if isinstance(value, dict) else value
    return found


def relays() -> dict[str, dict[str, Any]]:
    """Return the services of all files that are relays."""
    return {name: service for name, service in services().items() if service["image"] == "market-relay"}


def mounted() -> dict[str, Path]:
    """Return the files of the repository that containers get, by their place there."""
    found = {}
    for service in services().values():
        for mount in service.get("volumes", ()):
            source, target = mount.split(":")[:2]
            if source.startswith("."):
                found[target] = FOLDER / source
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_schema_of_compose_accepts_it(path: Path) -> None:
    checks = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    said = subprocess.run(checks, capture_output=True, text=True, timeout=LONGEST_WAIT_S, check=False)
    assert said.returncode == 0, said.stdout


def test_what_is_mounted_or_built_is_there() -> None:
    assert len(mounted()) == 8
    assert [path for path in mounted().values() if not path.is_file()] == []
    assert [*relays()] == ["relay-a", "relay-b", "relay-c", "relay"]
    for relay in relays().values():
        build = relay["build"]
        assert (FOLDER / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


def test_every_variable_of_the_relay_is_a_setting() -> None:
    host = PluginHost()
    host.load(BUILTIN, installed=False)
    known = {each for one in SETTINGS.values() for each in names_of_variable(one.variable, is_secret=one.is_secret)}
    for loaded in host.loaded.values():
        for setting in loaded.info.settings:
            for name in setting_variables(Config(), loaded.info, setting):
                known.update(names_of_variable(name, is_secret=setting.is_secret))
    for relay in relays().values():
        given = relay["environment"]
        assert {*given} <= known
        plain = {name[6:].lower(): value for name, value in given.items() if not name.endswith("_FILE")}
        assert all(SETTINGS[name].parse(value) for name, value in plain.items())
    given = relays()["relay"]["environment"]
    over = read("compose.secrets.yaml")
    # The folder is mounted: a container keeps a file that was mounted when another takes its place.
    assert over["services"]["relay"]["volumes"] == ["./secrets:/secrets:ro"]
    files = [value for name, value in given.items() if name.endswith("_FILE")]
    assert files == ["/secrets/tokens", "/secrets/twelve_data_api_key"]
    assert "secrets" not in over


def test_the_relay_takes_the_words_it_is_given() -> None:
    group = main.make_context("relay", ["serve"], resilient_parsing=True)
    for path in FILES:
        found = read(path.name)["services"].items()
        for words in [each["command"] for name, each in found if name in relays() and "command" in each]:
            command = main.get_command(group, words[0])
            assert isinstance(command, click.Command)
            command.make_context("serve", words[1:], parent=group)


@pytest.mark.parametrize("name", [*relays()])
def test_a_relay_is_locked_up_and_has_time_to_stop(name: str) -> None:
    relay = services()[name]
    assert relay["read_only"]
    assert (relay["cap_drop"], relay["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    # As long as the process itself takes at most.
    assert int(relay["stop_grace_period"].removesuffix("s")) > 40


def test_nothing_is_open_to_other_machines() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_understands_its_configuration_and_asks_the_relay(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    promtool = tool("promtool", "prometheus", request.config)
    text = (FOLDER / "prometheus.yaml").read_text(encoding="utf-8")
    for place, path in mounted().items():
        text = text.replace(place, str(path))
    (tmp_path / "prometheus.yaml").write_text(text)
    command = [promtool, "check", "config", str(tmp_path / "prometheus.yaml")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT_S, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    (job,) = read("prometheus.yaml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["relay:8000"]}]
    # The alert about a relay that is down finds it by this name.
    assert re.fullmatch(".*relay.*", job["job_name"])


def test_relays_of_a_cluster_have_names_and_databases_of_their_own_and_one_nats() -> None:
    clustered = {name: one for name, one in relays().items() if "RELAY_CLUSTER_NATS" in one["environment"]}
    assert len(clustered) == 3
    assert len({one["environment"]["RELAY_CLUSTER_NODE"] for one in clustered.values()}) == 3
    assert len({one["volumes"][0] for one in clustered.values()}) == 3
    (address,) = {one["environment"]["RELAY_CLUSTER_NATS"] for one in clustered.values()}
    nats = services()[urlsplit(address).hostname or ""]
    assert "-js" in nats["command"]
    # Nobody but the relays reaches it.
    assert nats["networks"] == ["bus"]
    assert read("compose.cluster.yaml")["networks"]["bus"] == {"internal": True}
    assert [name for name, one in services().items() if "bus" in one.get("networks", ())] == [*clustered, "nats"]


def test_the_address_that_the_relays_trust_is_given_to_the_balancer_alone() -> None:
    (front,) = read("compose.cluster.yaml")["networks"]["front"]["ipam"]["config"]
    own = ip_address(services()["balancer"]["networks"]["front"]["ipv4_address"])
    assert {one["environment"].get("RELAY_TRUSTED_PROXIES") for one in relays().values()} == {None, str(own)}
    assert own in ip_network(front["subnet"])
    # Others get theirs from this range, in any order.
    assert own not in ip_network(front["ip_range"])
    assert front["gateway"] != str(own)


def test_keys_beside_the_files_get_into_no_commit_and_no_package() -> None:
    for name in (".gitignore", ".dockerignore"):
        found = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert {"relay/packaging/compose/secrets/", "relay/packaging/compose/.env"} <= {*found}


@pytest.fixture
def silent() -> Iterator[str]:
    """An address of which nobody learns that nobody answers there, as of a machine that is gone."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def test_balancer_of_the_cluster_passes_over_relays_that_are_gone(
    request: pytest.FixtureRequest, tmp_path: Path, relay: Running, silent: str
) -> None:
    caddy = tool("caddy", "caddy", request.config)
    text = (FOLDER / "Caddyfile").read_text(encoding="utf-8")
    names = re.findall(r"relay-\w+(?=:8000)", text)
    assert names == [name for name in relays() if name != "relay"]
    port = free_port()
    text = text.replace("\n:8000 {", f"\nhttp://127.0.0.1:{port} {{")
    # Those that are gone are tried before the other one.
    text = text.replace("lb_policy least_conn", "lb_policy first")
    for name, place in zip(names, (silent, "127.0.0.1:9", relay.url.removeprefix("http://")), strict=True):
        text = text.replace(f"{name}:8000", place)
    (tmp_path / "Caddyfile").write_text(text)
    command = [caddy, "run", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession() as session:
            status = 0
            async with asyncio.timeout(LONGEST_WAIT_S):
                while not status:
                    with contextlib.suppress(aiohttp.ClientConnectorError):  # it may not have started yet
                        async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                            status = answer.status
                    await asyncio.sleep(0.1)
            assert status == 200
            async with session.ws_connect(f"http://127.0.0.1:{port}/api/v1/market-data/ws") as socket:
                await socket.send_json({"action": "subscribe", "streams": ["BTCUSDT@1m"]})
                assert (await socket.receive_json())["type"] != "error"
    finally:
        process.kill()
        await process.wait()


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    source, candles = read("grafana/datasources.yaml")["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = read("grafana/dashboards.yaml")["providers"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == provider["options"]["path"]
    assert json.loads(mounted()[home].read_text(encoding="utf-8"))["uid"] == "market-relay"
    assert services()["grafana"]["environment"]["GF_PLUGINS_PREINSTALL"] == candles["type"]
    assert candles["url"] == "http://relay:8000"


def test_freqtrade_is_led_to_the_relay_as_the_guide_says() -> None:
    block = re.search(r"### freqtrade\n.*?```json\n\"exchange\": (.*?)```", GUIDE, re.DOTALL)
    assert block is not None
    said = json.loads(block[1].replace("127.0.0.1:8000", "relay:8000"))
    given = json.loads((FOLDER / "freqtrade.json").read_text(encoding="utf-8"))
    assert said.items() <= given["exchange"].items()
    assert given["dry_run"]
    image = services()["freqtrade"]["image"]
    assert f"### freqtrade\n\n{image.rpartition(':')[2]}," in GUIDE
