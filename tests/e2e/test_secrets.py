"""Every kind of failure in a real relay at debug level: no key, token or password shows in anything that it says."""

import asyncio
import io
import json
import logging
import os
import re
import ssl
import subprocess
import sys
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import aiohttp
import pytest
import trustme
from aiohttp import web
from click.testing import CliRunner

from relay.cli import main
from relay.core.secret import pattern_of
from relay.telemetry.events import event
from relay.telemetry.logs import JsonFormatter, TextFormatter, conceal_in_logs
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.connect_proxy import ConnectProxy
from tests.support.loopback_server import app_of, loopback_server
from tests.support.relay_process import CLEAN, serving

API = "/api/v1/market-data"
# With signs that addresses spell in another way.
KEY = "canary/key+of=twelve data"
TOKEN, WRONG, HIDDEN = "canary-token-of-alice", "canary-token-guessed", "canary/key+of=the plugin"
PASSWORD, PROXY = "canary-password-in-url", "canary/of+the proxy"
CANARIES = [
    spelling
    for word in (KEY, TOKEN, WRONG, HIDDEN, PASSWORD, PROXY)
    for spelling in (word, quote(word), quote(word, ""))
]
CANARIES += [
    "%63%61%6e%61%72%79",
    b64encode(f":{KEY}".encode()).decode()[3:-4],
    b64encode(f"u:{PROXY}".encode()).decode(),
]

PLUGIN = '''
"""A provider that puts its key into everything it says."""

import asyncio
import threading
import warnings
from urllib.parse import quote

from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Setting, hookimpl


class Odd(Exception):
    pass


def fail(settings, how):
    key = settings["api_key"].reveal()
    local = key
    try:
        raise Odd(f"{how}: the key {key} is wrong, https://api.example/?key={quote(key, safe='')}")
    except Odd as error:
        raise RuntimeError(f"{local} again", {"key": key}) from error


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="leaky", api=API_VERSION, title="Leaky", asset_classes=("demo",), intervals=("1m", "5m", "1h", "1d"),
        settings=(Setting("api_key", is_secret=True),),
    )


@hookimpl
async def relay_stream(watchlist, settings):
    key = settings["api_key"].reveal()
    while not watchlist.streams:
        await asyncio.sleep(0.01)
    for one in list(watchlist.streams):
        if one.interval == "5m":
            watchlist.reject(one, f"the key {key} may not have that")
        elif one.interval == "1h":
            yield (key, one)
            yield PriceUpdate(key=one, candle=Candle(key, 1, 1, 1, 1, 1), is_closed=False)
        elif one.interval == "1d":
            fail(settings, "stream")
    await asyncio.sleep(0.2)
    fail(settings, "stream")


@hookimpl
async def relay_candles(symbol, session, settings):
    fail(settings, "candles by " + session.connector.proxies.of("https", "behind.example", 443).authorization)


@hookimpl
async def relay_instruments(settings):
    class Half:
        def __del__(self):
            fail(settings, "the collector")

    threading.Thread(target=fail, args=(settings, "a thread"), name="its thread").start()
    warnings.warn(settings["api_key"].reveal())
    Half()
    return [Instrument("LEAK", "demo", "LEAK", "USD")]
'''


FAILURES = (
    "host name cannot be resolved",
    "certificate is not valid",
    "connection refused",
    "the key was refused",
    "HTTP 500",
    "HTTP 302",
    "not JSON",
    "RuntimeError in relay_candles",
    "Leaky refused LEAK@5m",
    "a valid token is needed",
    "refused the user and the password (HTTP 407)",
)
KINDS = ("500", "302", "garbage", "404", "401")


class Upstream:
    """A REST server that fails in another way each time, and repeats the key it was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """List one pair, then fail: broken, sent elsewhere, unreadable, unknown, and last: the key is refused."""
        if request.path == "/api_usage":
            return web.json_response({"daily_usage": 0, "plan_limit": 1000, "plan_daily_limit": 10000})
        if request.path == "/forex_pairs":
            pair = {"symbol": "EUR/USD", "currency_group": "Major", "currency_base": "Euro", "currency_quote": "Dollar"}
            return web.json_response({"data": [pair], "status": "ok"})
        say = f"{request.headers.get('Authorization', '')} {request.query_string} {KEY}"
        kind = KINDS[min(len(self.asked), len(KINDS) - 1)]
        self.asked.append(kind)
        if kind == "302":
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:1/?apikey={quote(KEY, '')}"})
        if kind == "garbage":
            return web.Response(text=f"<html>{say}</html>", content_type="text/html")
        say = f"{say} {percent(KEY, '02x')} {b64encode(f':{KEY}'.encode()).decode()}"
        body = {"code": int(kind), "message": f"apikey {say} is refused", "status": "error"}
        return web.json_response(body, status=int(kind), headers={"X-Echo": quote(say)})


def write_configuration(folder: Path, rest_urls: list[str]) -> None:
    (folder / "leaky.py").write_text(PLUGIN)
    secret_url = f"127.0.0.1:1/?key={PASSWORD}"
    (folder / "relay.toml").write_text(
        f"""
        database = ":memory:"
        log_level = "debug"
        plugins = ["leaky.py", "nowhere.py"]
        [tokens]
        alice = "{TOKEN}"
        [binance]
        rest_url = ["http://user:{PASSWORD}@127.0.0.1:1", "http://{secret_url}"]
        ws_url = ["ws://user:{PASSWORD}@127.0.0.1:1", "ws://{secret_url}", "wss://nowhere.invalid?key={PASSWORD}"]
        [twelve_data]
        rest_url = {json.dumps(rest_urls)}
        credits_per_minute = 1000
        credits_per_day = 10000
        market_hours = "always"
        poll_seconds = 1
        """
    )


def found_in(said: str) -> list[str]:
    return [f"{word} in …{said[max(0, said.find(word) - 200) :][:400]}" for word in CANARIES if word in said]


def titles(pid: int) -> str:
    """Return what the list of processes shows."""
    return " ".join(Path(f"/proc/{pid}/{file}").read_text() for file in ("cmdline", "comm", "status"))


async def raw(url: str, text: bytes) -> str:
    """Send bytes that are no proper request; return what comes back."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    writer.write_eof()
    async with asyncio.timeout(LONGEST_WAIT_S):
        answer = await reader.read()
    writer.close()
    return answer.decode("utf-8", "replace")


async def ask_everything(session: aiohttp.ClientSession, url: str, said: list[str]) -> None:
    """Ask what fails, with tokens right and wrong, in the header and in the address."""
    right = {"Authorization": f"Bearer {TOKEN}"}
    for symbol in ["twelve_data:EUR/USD"] * 20 + ["binance:BTCUSDT", "leaky:LEAK", "leaky:LEAK", "NOPE"]:
        async with session.get(f"{url}{API}/history?symbol={symbol}&interval=1m&limit=5", headers=right) as answer:
            said.append(f"{answer.status} {dict(answer.headers)} {await answer.text()}")
    for path in (
        "symbols",
        f"symbols?token={TOKEN}",
        f"ws?token={WRONG}",
        f"ws?token={TOKEN}",
        f"nowhere?token={WRONG}",
    ):
        for headers in ({}, {"Authorization": f"Bearer {WRONG}"}, {"Origin": "https://evil.example"}):
            async with session.get(f"{url}{API}/{path}", headers=headers) as answer:
                said.append(f"{answer.status} {dict(answer.headers)} {await answer.text()}")
    for line in (
        f"GET {API}/ws?token={TOKEN} HTTP/9.9\r\n\r\n",
        f"GET {API}/ws?token={TOKEN}\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        f"GET {API}/ws?token={TOKEN} HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Header: {TOKEN}\r\n\r\n",
        f"GET {API}/ws?token={TOKEN} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        f"BREW {API}/ws?token={TOKEN} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
    ):
        # What aiohttp cannot read it may repeat to the one who sent it; it must not be logged.
        await raw(url, line.encode())
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(f"{url}{API}/ws?token={WRONG}")
    socket = await session.ws_connect(f"{url}{API}/ws?token={TOKEN}")
    leaks = [f"leaky:LEAK@{interval}" for interval in ("5m", "1h", "1d", "1m")]
    names = ["twelve_data:EUR/USD@1m", "binance:BTCUSDT@1m", *leaks, "NOPE@1m"]
    await socket.send_json({"action": "subscribe", "streams": names, "bars": 5})
    await socket.send_str("{")
    refused: set[str] = set()
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not {"LEAK", "EUR/USD"} <= refused:
            message: dict[str, Any] = await socket.receive_json()
            said.append(json.dumps(message))
            if "error" in (message["type"], message.get("status")):
                refused.add(message.get("symbol", "").rpartition(":")[2])
    for path in (f"{API}/status", "/metrics", "/openapi.json", "/asyncapi.json", "/docs", "/readyz", "/"):
        async with session.get(url + path, headers=right) as answer:
            assert answer.status in (200, 503), path
            said.append(await answer.text())
    await socket.close()


async def test_no_failure_shows_a_secret(tmp_path: Path) -> None:
    upstream = Upstream()
    authority = trustme.CA()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(stranger)
    said: list[str] = []
    async with (
        loopback_server(app_of(upstream.answer)) as plain,
        loopback_server(app_of(Upstream().answer), stranger) as untrusted,
        ConnectProxy("another") as proxy,
    ):
        urls = [f"http://{plain}", "https://nowhere.invalid", f"https://{untrusted}", "http://127.0.0.1:1"]
        write_configuration(tmp_path, [*urls, "https://behind.example", "http://behind.example"])
        environment = {
            "TWELVE_DATA_API_KEY": KEY,
            "RELAY_LEAKY_API_KEY": HIDDEN,
            "RELAY_PROXY": proxy.url.replace("://", f"://u:{quote(PROXY, '')}@"),
            "RELAY_TRUST_ENV": "true",
            "NO_PROXY": "nowhere.invalid",
        }
        async with (
            serving(tmp_path, env=environment, is_sandbox=False) as relay,
            aiohttp.ClientSession() as session,
        ):
            await ask_everything(session, relay.url, said)
            title = titles(relay.process.pid)
            assert "serve" in title
            said.append(title)
            (tmp_path / "relay.toml").write_text(f"[tokens]\nalice = '{TOKEN}\nbob = '{WRONG}")
            await relay.hang_up("the old one stays")
            assert await relay.stop() == 0
    assert {line.partition(" ")[0] for line, _ in proxy.asked} == {"CONNECT", "GET"}
    assert upstream.asked[:5] == ["500", "302", "garbage", "404", "401"]
    everything = "\n".join([*relay.out, *said])
    for failure in FAILURES:
        assert failure in everything, failure
    log = "\n".join(relay.err)
    assert "Traceback" in log  # of the plugin, which put its key into it
    assert "RuntimeError" in log
    assert "DEBUG" in log
    for line in ("the thread its thread ended by an error", "py.warnings: ", "an error that has no caller"):
        assert line in log, line
    assert found_in(log) == []
    assert found_in(everything) == []


async def test_all_that_a_relay_says_on_standard_error_is_a_line_of_json(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(PLUGIN)
    settings = {"RELAY_PLUGINS": "leaky.py", "RELAY_LEAKY_API_KEY": HIDDEN, "RELAY_LOG_FORMAT": "json"}
    async with serving(tmp_path, env=settings) as relay:
        assert await relay.stop() == 0
    lines = {line.get("event"): line for line in map(json.loads, relay.err)}
    assert {"thread_failed", "error_unraisable"} <= {*lines}
    assert lines["thread_failed"]["thread"] == "its thread"
    assert lines["plugin_line"]["logger"] == "py.warnings"
    told = ("thread_failed", "error_unraisable", "plugin_line")
    assert {lines[name]["provider"] for name in told} == {"leaky"}
    assert found_in(json.dumps([*lines.values()])) == []


def run(folder: Path, *arguments: str) -> str:
    """Run a command with all secrets in file and environment; return what it says."""
    environment = {**CLEAN, "TWELVE_DATA_API_KEY": KEY, "RELAY_LEAKY_API_KEY": HIDDEN, "RELAY_TOKEN": WRONG}
    environment["RELAY_PROXY"] = f"http://u:{quote(PROXY)}@127.0.0.1:1"
    done = subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_commands_and_their_help_show_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_configuration(tmp_path, ["http://127.0.0.1:1"])
    listed = run(tmp_path, "plugins")
    assert "leaky\tready" in listed
    assert found_in(listed) == []
    explained = run(tmp_path, "check-config")
    assert "upstreams   through the proxy http://127.0.0.1:1" in explained
    assert found_in(explained) == []
    asked = run(tmp_path, "status", "--url", f"http://user:{PASSWORD}@127.0.0.1:1")
    assert found_in(asked) == []
    monkeypatch.chdir(tmp_path)
    for name, value in {"RELAY_TOKENS": TOKEN, "RELAY_TOKEN": WRONG, "TWELVE_DATA_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    for name in ("", *main.commands):
        result = CliRunner().invoke(main, [*([name] if name else []), "--help"])
        assert result.exit_code == 0
        assert found_in(result.output) == []


@pytest.mark.parametrize(
    ("content", "environ"),
    [
        (f"tokens = '{TOKEN}", {}),
        (f"tokens = ['{TOKEN}', '']", {}),
        (f"[tokens]\nalice = '{TOKEN}'\nalice = '{WRONG}'", {}),
        (f"[tokens]\n'{TOKEN} of' = 'alice'", {}),
        (f"[twelve_data]\napi_key = ['{KEY}']", {}),
        (f"[binance]\nrest_url = 'htp://user:{PASSWORD}@example.org'", {}),
        (f"[binance]\nrest_url = 'example.org?key={PASSWORD}'", {}),
        ("", {"RELAY_TOKENS": f"{TOKEN},{TOKEN}"}),
        (f"proxy = 'socks5://u:{PROXY}@127.0.0.1'", {}),
        ("", {"RELAY_PROXY": f"{PROXY}://127.0.0.1"}),
        ("", {"RELAY_TRUST_ENV": "yes", "HTTPS_PROXY": f"u:{PROXY}@:"}),
        ("", {"RELAY_TRUST_ENV": "true", "HTTPS_PROXY": f"u:{PROXY}@:"}),
        ("", {"RELAY_BINANCE_WS_URL": f"wss//user:{PASSWORD}@example.org"}),
    ],
)
def test_complaint_about_the_configuration_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, environ: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith(("RELAY_", "TWELVE_DATA_")):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "relay.toml").write_text(content)
    result = CliRunner().invoke(main, ["serve", "--database", ":memory:"])
    assert result.exit_code == 2
    assert result.stderr.startswith("relay: ")
    assert found_in(result.output) == []


def percent(text: str, form: str) -> str:
    return "".join(f"%{byte:{form}}" for byte in text.encode())


SPELLINGS = {
    "as it is": KEY,
    "an address": quote(KEY),
    "an address, all": quote(KEY, ""),
    "a form": quote_plus(KEY),
    "every sign escaped": percent(KEY, "02X"),
    "every sign escaped, lower case": percent(KEY, "02x"),
    "escaped, lower case": quote(KEY, "").lower(),
    "escaped twice": quote(quote(KEY, ""), ""),
    "upper case": KEY.upper(),
    "JSON that escapes slashes": json.dumps(KEY).replace("/", "\\/"),
    "JSON that escapes all": "".join(f"\\u{ord(sign):04X}" for sign in KEY),
    "JSON in JSON": json.dumps(json.dumps({"key": KEY.replace("/", "\\/")})),
    "bytes": "".join(f"\\x{byte:02x}" for byte in KEY.encode()),
    "HTML": "".join(f"&#{ord(sign)};" for sign in KEY),
    "HTML, hexadecimal": "".join(f"&#x{ord(sign):04X};" for sign in KEY),
    "hexadecimal": KEY.encode().hex(),
    **{f"Basic, {name}": b64encode(f"{before}{KEY}{behind}".encode()).decode() for name, before, behind in (
        ("as the user", "", ":"), ("as the password", ":", ""), ("of a user", "u:", "!"), ("of another", "us:", "?"),
    )},
    "Base64 for addresses": urlsafe_b64encode(KEY.encode()).decode(),
}  # fmt: skip


def readable(text: str) -> str:
    """Return a text with all that anybody could read out of it, in lower case."""
    text = re.sub(r"\\+/", "/", text)
    found = [text, unquote_plus(text), unquote(unquote(text)), unescape(text)]
    found += [found[0].encode("latin-1", "replace").decode("unicode_escape", "replace")]
    for word in re.findall(r"[\w+/-]{12,}", text):
        for cut in range(4):
            part = word[cut:][: len(word[cut:]) // 4 * 4].replace("+", "-").replace("/", "_")
            with suppress(ValueError):
                found.append(urlsafe_b64decode(part).decode("latin-1"))
        with suppress(ValueError):
            found.append(bytes.fromhex(word).decode("latin-1"))
    return "\n".join(found).lower()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_secret_is_taken_out_however_it_is_spelt(spelling: str) -> None:
    text = SPELLINGS[spelling]
    assert KEY[:12].lower() in readable(text)
    told = pattern_of([KEY]).sub("***", f"apikey '{text}' is refused")
    assert told.startswith("apikey '")
    assert told.endswith("' is refused")
    assert KEY[4:12].lower() not in readable(told)


def test_texts_without_a_secret_stay_as_they_are() -> None:
    secrets = ("0123456789abcdef0123456789abcdef", "]^-[\\", "a&b+c/d e")
    text = "HTTP 401: the API key 0123456789 is incorrect; see https://example.org/?a=%20b&amp;c [x]^-[ \\\\\\"
    assert pattern_of(secrets).sub("***", text) == text
    assert pattern_of([]).sub("***", text) == text


def test_text_of_an_upstream_that_is_made_to_be_slow_is_not() -> None:
    for text in ("\\" * 200_000, "%25" * 70_000, "&amp;" * 40_000, "&#000" * 40_000):
        assert pattern_of([KEY]).sub("***", text) == text


def test_what_a_library_logs_holds_no_secret() -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(formatter)
        root, before = logging.getLogger(), logging.getLogger().handlers[:]
        root.addHandler(handler)
        try:
            pattern = pattern_of([KEY])
            conceal_in_logs(partial(pattern.sub, "***"))
            try:
                raise ValueError(percent(KEY, "02x"))
            except ValueError:
                logging.getLogger("of.a.library").exception("GET /?apikey=%s", quote(KEY, ""), extra=event("x", y=KEY))
        finally:
            root.handlers[:] = before
        assert "of.a.library" in handler.stream.getvalue()
        assert KEY.lower() not in readable(handler.stream.getvalue())
