"""The pages over HTTP: what is served, to whom, and under which policy; how they look is in `tests/e2e/browser`."""

import gzip
import hashlib
import re
from dataclasses import replace
from importlib import resources

import aiohttp
import pytest

from relay.web.pages import CHARTS_FILE, Pages, policy
from tests.conftest import StartRelay
from tests.support.running_relay import Answer, Running

STATIC = resources.files("relay.web") / "static"


def text_of(name: str) -> str:
    """Return a file of the pages as it is served."""
    asset = Pages().get(name)
    assert asset is not None
    return asset.plain.decode()


def test_charts_file_is_the_official_bundle_of_lightweight_charts_5_1_0() -> None:
    file = resources.files("litecharts") / "js" / CHARTS_FILE
    assert hashlib.sha256(file.read_bytes()).hexdigest() == (
        "756b0ba9f58930226d6b8b9d47ad310448ab85d799ea1f7c2c02304777c10b52"
    )


def test_notice_that_the_licence_of_the_charts_asks_for_is_on_the_page() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "TradingView Lightweight Charts™ © 2025 TradingView, Inc." in text
    assert 'href="https://www.tradingview.com/"' in page


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/status.html", "text/html; charset=utf-8"),
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/client.d.ts", "text/plain; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/favicon.svg", "image/svg+xml"),
        (f"/static/{CHARTS_FILE}", "text/javascript; charset=utf-8"),
    ],
)
async def test_page_is_served_with_a_strict_policy_and_without_a_token(
    relay_with: StartRelay, path: str, kind: str
) -> None:
    relay = await relay_with(tokens=["sesame-open-1234567890"])
    answer = await relay.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    host = relay.url.removeprefix("http://")
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "connect-src": f"'self' ws://{host} wss://{host}",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"


def frames_of(answer: Answer) -> tuple[str | None, str | None]:
    """Return who may show a page in a frame, by both headers that say it."""
    found = re.search(r"frame-ancestors ([^;]*)", answer.headers["Content-Security-Policy"])
    return found and found[1], answer.headers.get("X-Frame-Options")


async def test_chart_may_be_shown_in_a_frame_by_pages_that_are_listed(relay_with: StartRelay) -> None:
    relay = await relay_with(frame_ancestors=("https://blog.example", "http://127.0.0.1:8080"))
    answer = await relay.get("/?symbol=BTCUSDT&interval=1m&embed=1")
    assert frames_of(answer) == ("https://blog.example http://127.0.0.1:8080", None)
    again = await relay.get("/?symbol=BTCUSDT&embed=1", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, *frames_of(again)) == (304, *frames_of(answer))


@pytest.mark.parametrize(
    "path", ["/", "/?symbol=BTCUSDT", "/?embed=0", "/status.html?embed=1", "/docs?embed=1", "/static/main.js?embed=1"]
)
async def test_nothing_else_may_be_shown_in_a_frame(relay_with: StartRelay, path: str) -> None:
    relay = await relay_with(frame_ancestors=("https://blog.example",))
    assert frames_of(await relay.get(path)) == ("'none'", "DENY")


async def test_no_page_may_show_a_chart_in_a_frame_until_the_configuration_says_so(relay: Running) -> None:
    assert frames_of(await relay.get("/?symbol=BTCUSDT&embed=1")) == ("'none'", "DENY")
    relay.access.reconfigure(replace(relay.access.config, frame_ancestors=("https://blog.example",)))
    assert frames_of(await relay.get("/?symbol=BTCUSDT&embed=1")) == ("https://blog.example", None)


@pytest.mark.parametrize("host", ["[::1]:8000", "a b", "x;script-src *", "", "'unsafe-inline'", "host:port"])
def test_host_that_is_no_plain_name_does_not_get_into_the_policy(host: str) -> None:
    assert policy(host).endswith("; connect-src 'self'")


async def test_page_that_did_not_change_is_not_sent_again(relay: Running) -> None:
    first = await relay.get("/")
    again = await relay.get("/", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.text) == (304, "")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"
    other = await relay.get("/", headers={"If-None-Match": '"another"'})
    assert (other.status, other.text) == (200, first.text)


async def test_packed_and_plain_answers_are_the_same_file_under_two_tags(relay: Running) -> None:
    url = f"{relay.url}/static/{CHARTS_FILE}"
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        async with session.get(url, headers={"Accept-Encoding": "gzip"}) as answer:
            packed, packed_headers = await answer.read(), answer.headers
        async with session.get(url, headers={"Accept-Encoding": "identity"}) as answer:
            plain, plain_headers = await answer.read(), answer.headers
    assert packed_headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain_headers
    assert gzip.decompress(packed) == plain
    assert len(packed) < 70_000 < len(plain)
    assert packed_headers["ETag"] != plain_headers["ETag"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/nothing.js",
        "/static/",
        "/static/../pages.py",
        "/static/..%2Fpages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%5Cpages.py",
        "/static//etc/passwd",
        "/static/%00",
        "/index.html",
    ],
)
async def test_nothing_but_the_files_of_the_pages_is_served(relay: Running, path: str) -> None:
    answer = await relay.get(path)
    assert (answer.status, answer.body["code"]) == (404, "not_found")


async def test_pages_ask_for_nothing_that_is_not_served(relay: Running) -> None:
    asked = set()
    for name in Pages().names:
        text = text_of(name) if name != CHARTS_FILE else ""
        if name.endswith(".html"):
            asked |= set(re.findall(r'(?:src|href)="(?!https?:|#)([^"]+)"', text))
        elif name.endswith(".js"):
            imported = re.findall(r'^import [^;]*? from "([^"]+)";$', text, re.MULTILINE)
            asked |= {f"static/{one.removeprefix('./')}".replace("static/../", "") for one in imported}
    assert {"static/main.js", "static/feed.js", "client.js", f"static/{CHARTS_FILE}"} <= asked
    for path in sorted(asked):
        answer = await relay.get(f"/{path.removeprefix('./')}")
        assert answer.status == 200, path


async def test_pages_hold_nothing_inline_and_name_no_other_host() -> None:
    for name in Pages().names:
        if not name.endswith((".html", ".js", ".css")) or name == CHARTS_FILE:
            continue
        text = text_of(name)
        if name.endswith(".html"):
            assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=", text), name
        assert not re.search(r"\binnerHTML\b|\beval\(|new Function", text), name
        addresses = set(re.findall(r"https?://[^\s\"'`)<$]+", text))
        assert all(
            re.match(r"https://www\.tradingview\.com/|http://127\.0\.0\.1:8000|http://www\.w3\.org/", one)
            for one in addresses
        ), (name, addresses)
