"""Log lines an operator and a machine can use: an event each, with the same fields for the same things."""

import ast
import asyncio
import io
import json
import logging
import os
import queue
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from relay.telemetry.events import event
from relay.telemetry.line_writer import LineWriter
from relay.telemetry.logs import OWN_FIELDS, JsonFormatter, conceal_in_logs, set_up_logs
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox
from tests.support.slow_machine import SAID_BY
from tests.support.sources import nodes

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception"}

Line = dict[str, Any]


class Lines:
    """What was logged, as JSON lines."""

    def __init__(self, output: io.StringIO, handler: logging.Handler) -> None:
        self._output = output
        self.handler = handler

    def of(self, *events: str, **fields: object) -> list[Line]:
        """Return the lines of these events (of all, if none is named) that have these fields."""
        lines = [json.loads(line) for line in self._output.getvalue().splitlines()]
        return [
            line
            for line in lines
            if (not events or line.get("event") in events)
            and all(line.get(name) == value for name, value in fields.items())
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield Lines(output, handler)
    root.removeHandler(handler)


async def test_lines_of_a_client_can_be_told_from_those_of_others(relay: Running, lines: Lines) -> None:
    other, client = await relay.connect(), await relay.connect()
    await other.subscribe("ETHUSDT@1m")
    await client.subscribe("BTCUSDT@1m")
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1m", id_=1)
    await client.answer(1)
    await client.socket.close(code=1001)
    await eventually(lambda: lines.of("client_left"))
    came = lines.of("client_came")
    assert [line["address"] for line in came] == ["127.0.0.1", "127.0.0.1"]
    number = came[1]["client"]
    assert number != came[0]["client"]
    assert [(line["event"], line.get("stream"), line.get("action")) for line in lines.of(client=number)] == [
        ("client_came", None, None),
        ("client_stream", "BTCUSDT@1m", "subscribes to"),
        ("client_stream", "BTCUSDT@1m", "leaves"),
        ("client_left", None, None),
    ]
    (left,) = lines.of("client_left")
    assert (left["by"], left["code"], left["level"]) == ("client", 1001, "debug")
    assert left["message"] == f"client {number} left: close code 1001, by the client"


async def test_token_of_a_client_is_named_and_never_shown(relay_with: StartRelay, lines: Lines) -> None:
    relay = await relay_with(tokens=["open-sesame"])
    client = await relay.connect(headers={"Authorization": "Bearer open-sesame"})
    (came,) = lines.of("client_came")
    assert came["token"]
    assert not [line for line in lines.of() if "open-sesame" in json.dumps(line)]
    await client.close()


async def test_lost_feed_is_one_line_with_its_cause_and_the_wait(
    sandbox: Sandbox, relay: Running, lines: Lines
) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    sandbox.binance.faults.drop()
    await client.until_type("status", status="reconnecting")
    await client.until_type("status", status="connected")
    (ended,) = lines.of("feed_ended", provider="binance")
    opened = lines.of("feed_opened", provider="binance")
    assert len(opened) == 2
    assert (ended["level"], opened[0]["level"]) == ("warning", "info")
    assert ended["feed"] == opened[0]["feed"] != opened[1]["feed"]
    assert ended["cause"] == "lost"
    assert ended["reason"] in ended["message"]
    assert 1 <= ended["wait_s"] <= 2
    assert [
        line
        for line in lines.of(level="error")
        if line["logger"].startswith("relay.") and line["logger"] not in SAID_BY
    ] == []


def test_json_line_holds_fields_of_any_kind_and_they_take_nothing_away() -> None:
    record = logging.LogRecord("relay.some", logging.INFO, "file", 1, "path %s", ("x",), None)
    for name, value in event("some_event", path="/caf\udce9", place=Path("/tmp"), message="forged", n=3).items():
        setattr(record, name, value)
    line = json.loads(JsonFormatter().format(record))
    assert line["event"] == "some_event"
    assert line["path"] == "/caf\\udce9"
    assert (line["place"], line["n"], line["message"]) == ("/tmp", 3, "path x")


async def test_lines_of_a_plugin_name_their_event(relay_with: StartRelay, lines: Lines) -> None:
    relay = await relay_with(plugins=[str(ROOT / "tests" / "plugins" / "logs.py")])
    client = await relay.connect()
    await client.subscribe("ANY@1m", provider="logs")
    await eventually(lambda: lines.of("stream_begun"))
    (line,) = lines.of("stream_begun")
    assert (line["provider"], line["stream"], line["symbols"]) == ("logs", "ANY@1m", ["ANY"])
    assert line["message"] == "ANY@1m begins"
    assert line["key"] == "Secret(***)"
    assert line["many"] == str(1 << 70)
    assert (line["level"], line["logger"], line["time"][:2]) == ("warning", "logs_plugin", "20")
    # A library knows nothing of events.
    (line,) = lines.of("plugin_line")
    assert (line["provider"], line["logger"], line["message"]) == ("logs", "some_library", "connected")


@pytest.mark.parametrize("fields", [None, 7, ["event"], {1: 2, "\udce9": 3}])
def test_what_a_plugin_puts_in_the_place_of_fields_breaks_no_line(fields: object) -> None:
    record = logging.LogRecord("other", logging.INFO, "file", 1, "text", (), None)
    record.fields = fields
    line = json.loads(JsonFormatter().format(record))
    assert (line["logger"], line["level"], line["message"]) == ("other", "info", "text")


@cache
def sources() -> list[Path]:
    """Return the files of the relay and of its providers that have to do with the log."""
    files = (path for folder in ("relay", "providers") for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in files if re.search(r"\b(log|event)\b", path.read_text(encoding="utf-8")))


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a logger in them, and where it is."""
    for path in sources():
        for node in nodes(path):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and (node.func.value.id, node.func.attr in LEVELS) == ("log", True)
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_line_of_the_relay_names_its_event() -> None:
    found = list(calls())
    assert len(found) > 30
    assert [place for place, call in found if not any(keyword.arg == "extra" for keyword in call.keywords)] == []


def test_every_line_of_the_relay_is_put_together_by_the_logger() -> None:
    assert [place for place, call in calls() if not isinstance(call.args[0], ast.Constant)] == []


def test_names_of_events_and_fields_fit_everywhere() -> None:
    names = []
    for path in sources():
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "event":
                name, fields = node.args[0], {keyword.arg for keyword in node.keywords if keyword.arg}
                assert not fields & OWN_FIELDS, f"{path}:{node.lineno}"
                if isinstance(name, ast.Constant):
                    assert isinstance(name.value, str)
                    assert name.value.replace("_", "").isalpha(), name.value
                    assert name.value.islower(), name.value
                    names.append(name.value)
    assert len(names) == len(set(names))


def test_lines_where_feeds_and_calls_of_providers_run_say_of_which() -> None:
    modules = [
        *(ROOT / "relay" / "supervision").glob("*.py"),
        *(ROOT / "relay" / "instruments").glob("*.py"),
        *(ROOT / "relay" / "plugins" / f"{name}.py" for name in ("cancellation", "failure_judge", "settings_use")),
    ]
    events = [
        (f"{path.relative_to(ROOT)}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for path in modules
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("event", "RareWarning")
    ]
    assert len(events) > 20
    assert [place for place, fields in events if "provider" not in fields] == []


async def test_what_is_no_http_leaves_one_line_at_debug_and_no_traceback(relay: Running, lines: Lines) -> None:
    set_up_logs("debug", "text")
    logging.getLogger().addHandler(lines.handler)
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hush\x01\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    await eventually(lambda: lines.of("no_http"))
    loggers = ("aiohttp.server", "relay.web.aiohttp_seams")
    assert [line["level"] for line in lines.of() if line["logger"] in loggers] == ["debug"]
    assert not any("hush" in str(line) or "exception" in line for line in lines.of())


# -- who reads the lines ---------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def fill(end: int) -> int:
    """Write until there is no room; return how many bytes that were."""
    os.set_blocking(end, False)
    size = 0
    with suppress(BlockingIOError):
        while True:
            size += os.write(end, bytes(4096))
    os.set_blocking(end, True)
    return size


def read(end: int, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += os.read(end, size - len(got))
    return got


def test_lines_that_nobody_reads_wait_in_order_up_to_a_bound_and_the_rest_is_counted(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    filled = fill(writer)
    lost: queue.Queue[int] = queue.Queue()
    lines = LineWriter(writer, lost.put, most_bytes=300_000)
    for number in range(5000):
        lines.put(b"%099d\n" % number)
    lines.drain(0.01)
    read(reader, filled)
    assert read(reader, 300_000) == b"".join(b"%099d\n" % number for number in range(3000))
    assert lost.get(timeout=30) == 2000
    lines.put(b"and on\n")
    assert read(reader, 7) == b"and on\n"
    lines.drain(30)


def test_lines_go_nowhere_when_the_reader_is_gone(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, print)
    os.close(reader)
    lines.put(b"x\n")
    lines.drain(30)
    lines.put(b"y\n")
    lines.drain(30)


def test_lines_wait_for_a_pipe_that_does_not_block(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = LineWriter(writer, print)
    lines.put(bytes(500_000))
    assert read(reader, 500_000) == bytes(500_000)
    lines.drain(30)


@pytest.mark.parametrize("style", ["text", "json"])
def test_line_that_cannot_be_put_together_says_where_it_is_from_and_nothing_of_what(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs("info", style)
    logging.getLogger("a_plugin").info("connecting with", "open-sesame")
    (line,) = capsys.readouterr().err.splitlines()
    assert "a log line of a_plugin at test_logs.py:" in line
    assert "cannot be formatted: TypeError" in line
    assert "open-sesame" not in line

    def fail(text: str) -> str:
        raise ValueError

    conceal_in_logs(fail)
    logging.getLogger("a_plugin").info("x")
    assert capsys.readouterr().err == ""
