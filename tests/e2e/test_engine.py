"""The compose files and the guide's commands for containers, run by Docker as they are: marker `image`, run by .ci/run.

The relays are the image of this checkout, on made-up prices. Prometheus, NATS and Caddy are the programs of this
machine under the names of their images; Grafana and freqtrade are left out.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.packaging import distributions
from relay.packaging.image import BASE, fetch_packages
from tests.support import operators_guide
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.container import TAG, Image
from tests.support.engine import ROOT, CannotRun, Engine, Project
from tests.support.tools import docker_daemon, tool

pytestmark = [pytest.mark.image, pytest.mark.timeout(900), pytest.mark.real_time]

FOLDER = Path("relay", "packaging", "compose")
STREAM = "BTCUSDT@1s"
SANDBOX = ["--sandbox", "--forex-always-open", "--database", "/data/relay.db"]
WITHOUT_GRAFANA = ("relay", "prometheus")
SOON = {"interval": "1s"}
"""How often the check of the image runs, where a test waits for it."""
NOBODY, OF_IMAGE = 65534, 65532


def image_of(file: str, service: str) -> str:
    return str(yaml.safe_load((ROOT / FOLDER / file).read_text(encoding="utf-8"))["services"][service]["image"])


@pytest.fixture(scope="module")
def engine(image: Image, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Engine]:
    """Docker with the image, loaded from the archive of its command, and with what the files need beside it."""
    dockerd = docker_daemon(pytestconfig)
    prometheus, nats, caddy = (tool(name, name, pytestconfig) for name in ("prometheus", "nats-server", "caddy"))
    engine = Engine(tmp_path_factory.mktemp("engine"), dockerd)
    try:
        try:
            engine.start()
        except CannotRun as reason:
            pytest.skip(str(reason))
        engine.docker("load", "--input", str(image.sbom.parent / "image.tar.gz"))
        engine.docker("tag", f"localhost/{TAG}", "market-relay")
        # Entry points, users and folders are those of the images that their projects publish.
        engine.make(
            image_of("compose.yaml", "prometheus"),
            prometheus,
            settings=[
                'ENTRYPOINT ["prometheus"]',
                'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
                f"USER {NOBODY}",
                "VOLUME /prometheus",
                "WORKDIR /prometheus",
            ],
            folders={"prometheus": NOBODY},
        )
        engine.make(image_of("compose.cluster.yaml", "nats"), nats, settings=['ENTRYPOINT ["nats-server"]'], folders={})
        engine.make(
            image_of("compose.cluster.yaml", "balancer"),
            caddy,
            settings=[
                'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]',
                "ENV XDG_CONFIG_HOME=/config",
                "ENV XDG_DATA_HOME=/data",
            ],
            folders={"config": 0, "data": 0, "srv": 0},
        )
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the files need of a checkout, readable for all as git leaves it."""
    for folder in (FOLDER, Path("relay", "telemetry", "monitoring")):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("secrets"))
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path


@contextmanager
def up(
    engine: Engine, checkout: Path, *files: str, over: dict[str, Any], services: tuple[str, ...] = ()
) -> Iterator[Project]:
    """Bring up all or some services of files, with more laid over them, and wait until clients can come."""
    (checkout / "over.yaml").write_text(json.dumps(over), encoding="utf-8")
    project = Project(engine, checkout, *(str(FOLDER / file) for file in files), "over.yaml")
    try:
        project.run("up", "-d", *services)
        until(lambda: engine.relay("health", "--ready").returncode == 0)
        yield project
    except AssertionError:
        print(project.run("ps", "-a"), project.run("logs"))
        raise
    finally:
        project.run("down", "--volumes", "--timeout", "10")


def is_healthy(project: Project, name: str) -> bool:
    """Say whether the check that the image brings has passed."""
    return bool(project.about(name)["State"]["Health"]["Status"] == "healthy")


def until(check: Callable[[], object]) -> None:
    """Ask again and again, until it is so."""
    end = time.monotonic() + LONGEST_WAIT_S
    while not check():
        assert time.monotonic() < end
        time.sleep(0.5)


def closed_times(messages: str) -> list[int]:
    """Return the open times of the closed candles in what `relay tail --json` printed, each once."""
    found = [json.loads(line) for line in messages.splitlines()]
    return sorted({one["candle"]["time"] for one in found if one["type"] == "price_update"})


def candles(engine: Engine, count: int, **more: str) -> list[int]:
    """Return the open times of the next closed candles that a client gets."""
    done = engine.relay("tail", STREAM, "--closed-only", "--json", "--count", str(count), **more)
    assert done.returncode == 0, done.stderr
    return closed_times(done.stdout)


def is_scraped(engine: Engine) -> bool:
    targets = engine.get("http://127.0.0.1:9090/api/v1/targets")["data"]["activeTargets"]
    return [(one["labels"]["instance"], one["health"]) for one in targets] == [("relay:8000", "up")]


def test_a_relay_and_prometheus_come_up_as_locked_up_as_the_file_says(engine: Engine, checkout: Path) -> None:
    over = {"services": {"relay": {"command": ["serve", "--insecure", *SANDBOX], "healthcheck": SOON}}}
    with up(engine, checkout, "compose.yaml", over=over, services=WITHOUT_GRAFANA) as project:
        times = candles(engine, 3)
        assert times == [times[0] + second for second in range(3)]
        until(lambda: is_scraped(engine))
        rules = engine.get("http://127.0.0.1:9090/api/v1/rules")["data"]["groups"]
        assert "RelayDown" in {rule["name"] for group in rules for rule in group["rules"]}
        told = project.inside("relay", "python", "-c", "print(open('/proc/1/status').read())").stdout
        status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
        assert (status["Uid"].split()[0], status["CapEff"], status["NoNewPrivs"]) == (str(OF_IMAGE), "0" * 16, "1")
        written = project.inside("relay", "python", "-c", "open('/opt/relay/file', 'w')")
        assert "Read-only file system" in written.stderr
        until(lambda: is_healthy(project, "relay"))
        began = time.monotonic()
        project.run("stop", "relay")
        print(f"stopped after {time.monotonic() - began:.1f} s")
        # Not 137: it ended by itself.
        assert project.about("relay")["State"]["ExitCode"] == 0
        # What it stored is in the volume, for the next container.
        project.run("rm", "-f", "relay")
        project.run("up", "-d", "relay")
        query = f"SELECT count(*) FROM candles WHERE time IN ({', '.join(map(str, times))})"
        script = f"import sqlite3; print(sqlite3.connect('/data/relay.db').execute('{query}').fetchone()[0])"
        assert project.inside("relay", "python", "-c", script).stdout == "3\n"


def test_secrets_are_files_which_the_relay_reads_again_on_sighup(engine: Engine, checkout: Path) -> None:
    tokens = [
        subprocess.run(
            [sys.executable, "-m", "relay", "token"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    folder = checkout / FOLDER / "secrets"
    folder.mkdir()
    given = {"tokens": tokens[0][-1], "twelve_data_api_key": "key"}
    for name, text in given.items():
        (folder / name).write_text(f"{text}\n")
        os.chown(folder / name, OF_IMAGE, OF_IMAGE)
        (folder / name).chmod(0o400)
    over = {"services": {"relay": {"command": ["serve", *SANDBOX]}}}
    files = ("compose.yaml", "compose.secrets.yaml")
    with up(engine, checkout, *files, over=over, services=WITHOUT_GRAFANA) as project:
        assert len(candles(engine, 1, RELAY_TOKEN=tokens[0][0])) == 1
        refused = engine.relay("tail", STREAM, "--count", "1", RELAY_TOKEN=tokens[1][0])
        assert refused.returncode != 0
        assert "token" in refused.stderr
        # As editors and `install` do: another file takes its place.
        with_both = folder / "tokens.new"
        with_both.write_text(f"{tokens[0][-1]}\n{tokens[1][-1]}\n")
        os.chown(with_both, OF_IMAGE, OF_IMAGE)
        with_both.chmod(0o400)
        with_both.replace(folder / "tokens")
        project.run("kill", "-s", "HUP", "relay")
        until(lambda: "the configuration was read again" in project.run("logs", "relay"))
        assert len(candles(engine, 1, RELAY_TOKEN=tokens[1][0])) == 1
        # It has no token.
        until(lambda: is_scraped(engine))


def test_clients_of_the_cluster_go_on_while_one_relay_after_the_other_is_away(engine: Engine, checkout: Path) -> None:
    # All three have one exchange, which is another relay: it serves Binance's contract.
    venue = {
        "RELAY_BINANCE_REST_URL": "http://venue:8000",
        "RELAY_BINANCE_WS_URL": "ws://venue:8000",
        "RELAY_BINANCE_USDM_ENABLED": "no",
    }
    relays = ("relay-a", "relay-b", "relay-c")
    services: dict[str, Any] = {name: {"environment": venue, "healthcheck": SOON} for name in relays}
    exchange = {"image": "market-relay", "command": ["serve", "--insecure", *SANDBOX], "networks": ["front"]}
    over = {"services": {**services, "venue": exchange}}
    with up(engine, checkout, "compose.cluster.yaml", over=over) as project:
        assert engine.get("http://127.0.0.1:8000/readyz") == {"status": "ok", "cluster": "joined"}
        command = [sys.executable, "-m", "relay", "tail", STREAM, "--closed-only", "--json"]
        environment = {**os.environ, "RELAY_URL": "http://127.0.0.1:8000", "PYTHONPATH": str(ROOT)}
        client = subprocess.Popen(
            engine.inside(*command), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            for name in relays:
                project.run("stop", name)
                # None of the requests meets the one that is away.
                for _ in range(6):
                    assert engine.get("http://127.0.0.1:8000/readyz")["status"] == "ok"
                assert len(candles(engine, 2)) == 2
                project.run("up", "-d", name)
                until(lambda: project.inside(name, "relay", "health", "--ready").returncode == 0)  # noqa: B023  called here
        finally:
            client.send_signal(signal.SIGINT)
            out, err = client.communicate(timeout=60)
        times = closed_times(out)
        assert "connected again" in err
        assert times == [*range(times[0], times[-1] + 1)]
        assert times[-1] - times[0] > 10
        # Each relay believes Caddy who its clients are.
        assert "X-Forwarded-For" not in project.run("logs", *relays)
        until(lambda: all(is_healthy(project, name) for name in relays))


@pytest.fixture
def newcomer(engine: Engine, image: Image, tmp_path: Path) -> Path:
    """A checkout, on a machine whose Docker has the base that the Dockerfile names.

    The base's pip finds the packages of the locks in a folder, since it reaches no index.
    """
    base = tmp_path / "base"
    base.mkdir()
    image.images.save(BASE, base / "base.tar")
    engine.docker("load", "--input", str(base / "base.tar"))
    (base / "base.tar").unlink()
    fetch_packages(base / "wheels")
    (pip,) = (base / "wheels").glob("pip-*.whl")
    shutil.unpack_archive(pip, base / "modules", "zip")
    lines = [f"FROM {BASE}", "ADD modules /usr/lib/python3/dist-packages", "ADD wheels /wheels"]
    lines.append("ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels")
    (base / "Dockerfile").write_text("\n".join(lines), encoding="utf-8")
    named = re.search(
        r"^ARG BASE=(\S+)$", (ROOT / "relay/packaging/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert named is not None
    engine.docker("build", "--tag", named[1], str(base))
    return distributions.copy_source(tmp_path / "checkout")


def test_a_newcomer_gets_along_with_what_the_guide_prints(engine: Engine, image: Image, newcomer: Path) -> None:
    printed = operators_guide.lines()

    def run(line: str) -> str:
        done = engine.run("sh", "-c", line, cwd=newcomer)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    # Built from the source, and run.
    engine.run("docker", "rmi", "--force", "market-relay")
    first = engine.begin("sh", "-c", printed.run_container, cwd=newcomer)
    until(lambda: first.poll() is not None or engine.relay("health", "--ready").returncode == 0)
    assert len(candles(engine, 2)) == 2
    run("docker stop $(docker ps --quiet)")
    assert first.wait(timeout=60) == 0
    # All services of the files, with a program that waits under the name of Grafana's.
    sleep = shutil.which("sleep")
    assert sleep is not None
    engine.make(image_of("compose.yaml", "grafana"), sleep, settings=['ENTRYPOINT ["sleep", "1000"]'], folders={})
    try:
        run(printed.compose)
        until(lambda: engine.answers("http://127.0.0.1:8000/readyz"))
        until(lambda: is_scraped(engine))
        name = run(printed.compose.replace("up -d", "ps --quiet relay")).strip()
        run(operators_guide.words("docker kill -s HUP").replace("NAME", name))
        run(operators_guide.words("docker exec NAME relay store --backup").replace("NAME", name))
        run(printed.restore.replace("NAME", name))
        for said in ("the configuration was read again", "store continues with the file that is there now"):
            until(lambda: said in run(f"docker logs {name} 2>&1"))  # noqa: B023  called here
    finally:
        run(printed.compose.replace("up -d", "down --volumes --timeout 5"))
    try:
        run(printed.cluster)
        until(lambda: engine.answers("http://127.0.0.1:8000/readyz"))
    finally:
        run(printed.cluster.replace("up -d", "down --volumes --timeout 5"))


def test_a_machine_with_nothing_but_buildah_serves_candles(engine: Engine, image: Image) -> None:
    storage = image.images
    storage.tag(TAG, "market-relay")
    line = operators_guide.lines().run_made
    serving = engine.begin("sh", "-c", f"exec {line}", more=storage.environment, is_inside=True)
    try:
        until(lambda: serving.poll() is not None or engine.relay("health", "--ready").returncode == 0)
        assert len(candles(engine, 2)) == 2
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(timeout=60)


def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    daemon = tmp_path / "dockerd"
    daemon.write_text("#!/bin/sh\necho starting\necho 'failed to start daemon: no network' >&2\nexit 1\n")
    daemon.chmod(0o755)
    with pytest.raises(CannotRun, match=r"failed to start daemon: no network$"):
        Engine(tmp_path, str(daemon)).start()
