"""Who may use the relay: tokens, origins, numbers of clients; over a real socket."""

import asyncio
import dataclasses
import logging
import re
import time
from collections.abc import Awaitable
from typing import Any

import aiohttp
import pytest

from relay.app import RelayLimits
from relay.client import RelayClient
from relay.config.parsers import networks, origins
from relay.core.hosts import parse_host
from relay.web.access.access import AddressLimits
from relay.web.access.client_address import client_address, is_own_by_nature, is_private_name, owner_of
from relay.web.http.history import ROUTE
from tests.conftest import StartRelay
from tests.integration.test_http import assert_problem
from tests.support.conditions import eventually
from tests.support.running_relay import Running, WsClient
from tests.support.transports import TRANSPORTS, UPGRADE, Transport

PAGE = "https://charts.example.org"


async def refusal(connecting: Awaitable[Any]) -> aiohttp.WSServerHandshakeError:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connecting
    return refused.value


# -- tokens ----------------------------------------------------------------------------------------


async def test_without_a_valid_token_nothing_but_health_is_served(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame", "second"))
    for path in ("history?symbol=BTCUSDT&interval=1m", "symbols", "status", "/nothing"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer "},
            {"Authorization": "Basic opensesame"},
            {"Authorization": "opensesame"},
            {"Authorization": "Bearer \udcff\udcfe"},
            {"Authorization": "Bearer höhle"},
        ):
            answer = await relay.get(path, headers=headers)
            assert_problem(answer, 401, "unauthorized", "Authorization: Bearer")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "opensesame" not in answer.text
    for path in ("/healthz", "/readyz"):
        assert (await relay.get(path)).status == 200


@pytest.mark.parametrize("header", ["Bearer opensesame", "bearer second", "BEARER  opensesame "])
async def test_each_token_opens_everything(relay_with: StartRelay, header: str) -> None:
    relay = await relay_with(tokens=("opensesame", " second "))
    assert (await relay.get("symbols", headers={"Authorization": header})).status == 200
    client = await relay.connect(headers={"Authorization": header})
    await client.subscribe("BTCUSDT@1m")


async def test_query_token_counts_only_where_updates_come(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(tokens=("opensesame",))
    await over.subscriber(relay, "BTCUSDT@1m", token="opensesame")
    await over.subscriber(relay, "BTCUSDT@1m", headers={"Authorization": "Bearer opensesame"})
    for token in ("wrong", None):
        assert_problem(await over.refusal(relay, token=token), 401, "unauthorized")
    assert_problem(await relay.get("symbols?token=opensesame"), 401, "unauthorized")


HISTORY = "/api/v1/market-data/history?symbol=BTCUSDT&interval=1m&limit=1"
UPDATES = "/api/v1/market-data/{}?streams=BTCUSDT@1m"


WAYS = {
    "/api/v1/market-data/symbols": "",
    HISTORY: "/t/TOKEN/api/v1/market-data/history",
    UPDATES.format("sse"): "?token=TOKEN",
    UPDATES.format("ws"): "?token=TOKEN",
    "/api/v3/ping": "/t/TOKEN/api/v3,",
    "/fapi/v1/ping": "/t/TOKEN/fapi,",
    "/stream?streams=btcusdt@kline_1m": "/t/TOKEN/stream,",
    "/udf/time": "/t/TOKEN/udf,",
    "/widgets.json": "/t/TOKEN/widgets.json,",
}


async def test_a_route_without_a_token_names_all_ways_to_send_one_to_it(
    relay_with: StartRelay, session: aiohttp.ClientSession
) -> None:
    relay = await relay_with(tokens=("opensesame",))

    async def ask(path: str, **more: str) -> tuple[int, str]:
        headers = {**(UPGRADE if "/ws" in path or "/stream" in path else {}), **more}
        async with session.get(relay.url + path, headers=headers) as answer:
            return answer.status, "" if answer.status in (101, 200) else await answer.text()

    for path, way in WAYS.items():
        status, said = await ask(path)
        assert status == 401
        assert way in said
        accepted = {
            "?token=TOKEN": await ask(f"{path}{'&' if '?' in path else '?'}token=opensesame"),
            "/t/TOKEN/": await ask(f"/t/opensesame{path}"),
            "Authorization: Bearer TOKEN": await ask(path, Authorization="Bearer opensesame"),
        }
        for name, (status, _) in accepted.items():
            assert (status in (101, 200)) is (name in said), (name, status, said)


async def test_a_token_in_the_address_of_the_websocket_is_one_also_without_an_upgrade(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame",))
    answer = await relay.get("ws?token=opensesame")
    assert_problem(answer, 400, "invalid_request")
    assert "connect with ws:// or wss://" in answer.body["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/status.html", "/client.js", "/static/chart.js", "/docs", "/openapi.json", "/asyncapi.json"]
)
async def test_pages_and_contracts_load_without_a_token(relay_with: StartRelay, path: str) -> None:
    relay = await relay_with(tokens=("opensesame",))
    answer = await relay.get(path)
    assert answer.status == 200
    assert "opensesame" not in answer.text


@pytest.mark.parametrize(
    "path", ["/static/../api/v1/market-data/status", "/static/%2e%2e/metrics", "//metrics", "/docs/../metrics"]
)
async def test_no_spelling_of_a_path_leads_past_the_token(relay_with: StartRelay, path: str) -> None:
    relay = await relay_with(tokens=("opensesame",))
    answer = await relay.get(path)
    assert answer.status in (401, 404)
    assert "uptime" not in answer.text


async def test_status_and_metrics_need_a_token_once_there_are_any(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame",))
    for path in ("status", "/metrics"):
        assert_problem(await relay.get(path), 401, "unauthorized")
        assert (await relay.get(path, headers={"Authorization": "Bearer opensesame"})).status == 200


async def test_public_status_opens_status_and_metrics_and_nothing_else(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens={"alice": "opensesame"}, public_status=True)
    for path in ("status", "/metrics"):
        answer = await relay.get(path)
        assert answer.status == 200
        assert "alice" not in answer.text
    assert_problem(await relay.get("symbols"), 401, "unauthorized")
    assert (await refusal(relay.connect())).status == 401
    assert_problem(await relay.get("status", headers={"Origin": PAGE}), 403, "forbidden")


async def test_name_of_a_token_shows_in_status_and_debug_log_and_the_token_nowhere(
    relay_with: StartRelay, over: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    relay = await relay_with(tokens={"alice": "opensesame", "bob": "other"})
    await over.subscriber(relay, "BTCUSDT@1m", token="opensesame")
    status = await relay.get("status", headers={"Authorization": "Bearer other"})
    assert status.body["clients"]["tokens"] == {"alice": 1, "bob": 0}
    assert "with 'alice'" in caplog.text
    assert "opensesame" not in caplog.text + status.text


async def test_token_in_the_path_of_history_is_one_and_is_kept_and_logged_nowhere(
    relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    relay = await relay_with(tokens={"alice": "opensesame"}, max_history_rows_per_minute_per_address=3)
    path = "/api/v1/market-data/history"
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "limit": 2, "end_time": 1_764_000_000}
    for before in ("", "/t/wrong", "/t"):
        assert (await relay.get(before + path, **query)).status in (401, 404)
    for _ in range(2):
        assert len((await relay.get(f"/t/opensesame{path}", **query)).body["candles"]) == 2
    # A kept answer counts as well.
    assert_problem(await relay.get(f"/t/opensesame{path}", **query), 429, "rate_limited", "one token")
    metrics = await relay.get("/metrics", headers={"Authorization": "Bearer opensesame"})
    assert "/t/{path_token}/api/v1/market-data/history" in metrics.text
    assert "opensesame" not in metrics.text + caplog.text
    plain = f"{path}?symbol=BTCUSDT&interval=1m&limit=2&end_time=1764000000"
    assert relay.app[ROUTE].bodies.get(plain) is not None


# -- origins ---------------------------------------------------------------------------------------


async def test_origin_that_is_not_allowed_is_refused(relay: Running, over: Transport) -> None:
    for origin in (PAGE, "null", "http://127.0.0.1:1", "https://" + relay.url.removeprefix("http://"), "", "\udcff"):
        headers = {"Origin": origin}
        for answer in (await over.refusal(relay, headers=headers), await relay.get("symbols", headers=headers)):
            assert_problem(answer, 403, "forbidden", "allowed_origins")
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_own_origin_allowed_origins_and_no_origin_pass(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(allowed_origins=(PAGE,))
    for headers in ({}, {"Origin": relay.url}, {"Origin": PAGE}, {"Origin": PAGE.upper()}):
        await over.subscriber(relay, "BTCUSDT@1m", headers=headers)
        assert (await relay.get("symbols", headers=headers)).status == 200


REBOUND = "http://evil.example:8000"
OWN_NAMES = ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "relay.localhost:8000", "localhost.",
             "[::1]:8000", "192.168.1.5:8000", "10.0.0.7"]  # fmt: skip


async def test_rebound_name_gets_nothing_from_a_relay_without_tokens(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(allowed_origins=(PAGE,))
    for host in ("evil.example:8000", "evil.example", "10.0.0.7.evil.example", "localhost.evil.example", "mybox", ""):
        # A page asks its own origin over HTTP without saying it; over WebSocket it says it.
        assert_problem(await relay.get("symbols", headers={"Host": host}), 403, "forbidden", "allowed_origins")
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert_problem(await relay.get("symbols", headers=headers), 403, "forbidden")
        for asks in (headers, {"Host": host}):
            assert_problem(await over.refusal(relay, headers=asks), 403, "forbidden")
        assert (await relay.get("/healthz", headers={"Host": host})).status == 200


@pytest.mark.parametrize("host", OWN_NAMES)
async def test_own_names_and_addresses_are_known(relay: Running, host: str) -> None:
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}".lower()}):
        assert (await relay.get("symbols", headers=headers)).status == 200
        await (await relay.connect(headers=headers)).close()
    other = {"Host": host, "Origin": f"http://{host}1"}
    assert_problem(await relay.get("symbols", headers=other), 403, "forbidden")


async def test_listed_origin_makes_its_host_known_behind_a_proxy_too(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=(PAGE,))
    for headers in ({}, {"Origin": PAGE}):
        assert (await relay.get("symbols", headers={"Host": "charts.example.org", **headers})).status == 200


async def test_configured_host_and_names_of_the_network_are_known_where_the_network_may_connect(
    relay_with: StartRelay,
) -> None:
    relay = await relay_with(host="prices.example.org", insecure=True)
    for host in ("prices.example.org", "mybox:8000", "mybox.local", "relay.internal"):
        assert (await relay.get("symbols", headers={"Host": host, "Origin": f"http://{host}"})).status == 200
    rebound = {"Host": "evil.example:8000", "Origin": REBOUND}
    assert_problem(await relay.get("symbols", headers=rebound), 403, "forbidden")
    assert_problem(await relay.get("symbols", headers={"Host": "evil.example"}), 403, "forbidden")


async def test_with_tokens_any_name_will_do_since_no_browser_adds_a_token(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame",))
    rebound = {"Host": "relay.example.org", "Origin": "http://relay.example.org"}
    assert_problem(await relay.get("symbols", headers=rebound), 401, "unauthorized")
    assert (await relay.get("symbols", headers={**rebound, "Authorization": "Bearer opensesame"})).status == 200
    elsewhere = {**rebound, "Origin": PAGE, "Authorization": "Bearer opensesame"}
    assert_problem(await relay.get("symbols", headers=elsewhere), 403, "forbidden")


async def test_proxy_that_is_trusted_says_the_scheme(relay_with: StartRelay) -> None:
    headers = {"Host": "localhost", "Origin": "https://localhost", "X-Forwarded-Proto": "https"}
    relay = await relay_with()
    assert_problem(await relay.get("symbols", headers=headers), 403, "forbidden")
    relay = await relay_with(trusted_proxies=networks(["127.0.0.1"]))
    assert (await relay.get("symbols", headers=headers)).status == 200
    for strange in ({"Origin": "http://localhost"}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "gopher"}):
        assert_problem(await relay.get("symbols", headers={**headers, **strange}), 403, "forbidden")


@pytest.mark.parametrize(
    ("says", "scheme"), [("wss", "https"), ("ws", "http"), ("HTTPS", "https"), ("a, wss", "https")]
)
async def test_a_proxy_may_name_the_scheme_of_the_websocket(relay_with: StartRelay, says: str, scheme: str) -> None:
    relay = await relay_with(trusted_proxies=networks(["127.0.0.1"]))
    headers = {"Host": "localhost", "Origin": f"{scheme}://localhost", "X-Forwarded-Proto": says}
    assert (await relay.get("symbols", headers=headers)).status == 200


async def test_a_page_behind_a_proxy_that_is_not_trusted_is_told_the_cause_and_the_log_what_was_compared(
    relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await relay_with()
    headers = {"Host": "charts.localhost", "X-Forwarded-Proto": "https"}
    for _ in range(5):
        answer = await relay.get("ws", headers={**headers, "Origin": "https://charts.localhost"})
        assert_problem(answer, 403, "forbidden", "came through a proxy", "trusted_proxies")
        assert "127.0.0.1" not in answer.text
    # A browser says no origin in what a page asks of its own host; the page does.
    answer = await relay.get("ws", headers={**headers, "X-Page-Origin": "https://charts.localhost"})
    assert_problem(answer, 403, "forbidden", "came through a proxy", "trusted_proxies")
    said = [record.getMessage() for record in caplog.records if "refused a page" in record.getMessage()]
    assert said == [
        "refused a page of origin 'https://charts.localhost': it is not in allowed_origins, and not the relay's own by "
        "Host 'charts.localhost' and http; X-Forwarded-Proto is 'https', but 127.0.0.1, which sent it, is not in "
        "trusted_proxies"
    ]


async def test_a_host_that_is_refused_is_logged_once(relay_with: StartRelay, caplog: pytest.LogCaptureFixture) -> None:
    relay = await relay_with()
    for _ in range(5):
        assert_problem(await relay.get("symbols", headers={"Host": "evil.example"}), 403, "forbidden")
    (said,) = [record.getMessage() for record in caplog.records if "Host is" in record.getMessage()]
    assert "refused a request whose Host is 'evil.example': it is neither an address" in said


LISTED = ("null", "chrome-extension://abcdefghijklmnop", "capacitor://localhost", "app://obsidian.md", PAGE)


async def test_extensions_apps_and_pages_without_an_origin_can_be_allowed_by_name(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=origins(list(LISTED)))
    for origin in LISTED:
        answer = await relay.get("symbols", headers={"Origin": origin})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
    for origin in ("moz-extension://abcdefghijklmnop", "capacitor://localhost:81", "app://obsidian.md.evil", "file://"):
        assert_problem(await relay.get("symbols", headers={"Origin": origin}), 403, "forbidden", "allowed_origins")
    strict = await relay_with()
    for origin in LISTED:
        assert_problem(await strict.get("symbols", headers={"Origin": origin}), 403, "forbidden", "allowed_origins")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("*", "every"), (f"{PAGE}/", f"write {PAGE}"), ("https://a.example/x", "such as"), ("a.example", "such as"),
        ("https://*.a.example", "such as"), ("app://x/", "write app://x"), ("Null", "such as"),
    ],
)  # fmt: skip
def test_origins_that_are_none_are_refused_with_the_reason(written: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        origins([written])


@pytest.mark.parametrize(
    ("name", "is_own", "is_private"),
    [
        ("localhost", True, True), ("a.localhost", True, False), ("[::1]", True, True), ("8.8.8.8", True, False),
        ("mybox", False, True), ("mybox.local", False, True), ("a.home.arpa", False, True),
        ("evil.example", False, False), ("local.evil", False, False),
    ],
)  # fmt: skip
def test_names_of_hosts(name: str, is_own: bool, is_private: bool) -> None:
    host = parse_host(name)
    assert host is not None
    assert (is_own_by_nature(host), is_private_name(host.name)) == (is_own, is_private)


TRICKS = ["evil.example@127.0.0.1", "127.0.0.1@evil.example", "evil.example:80@127.0.0.1", "[::1%evil.example]",
          "[::1]evil.example", "[::1].evil.example", "[evil.example]", "127.0.0.1:80:80", "127.0.0.1:evil",
          "localhost:80@evil.example", "localhost%2eevil.example", "localhost/evil.example", "localhost#evil.example",
          "localhost\\evil.example", "localhost,evil.example", "localhost evil.example", "2130706433", "0x7f000001",
          "0177.0.0.1", "127.1", "127.0.0.1.", "::1", "localhost..", ".localhost", "localhost:99999", "localhost:",
          "%31%32%37.0.0.1"]  # fmt: skip


async def ask(relay: Running, *lines: str) -> int:
    """Send a request as it is written; return the status of the answer."""
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    head = await reader.read()
    writer.close()
    return int(head.split()[1])


SYMBOLS = "/api/v1/market-data/symbols"


@pytest.mark.parametrize("host", TRICKS)
async def test_what_only_looks_like_an_own_host_gets_nothing(relay: Running, host: str) -> None:
    assert await ask(relay, f"GET {SYMBOLS} HTTP/1.1", f"Host: {host}") in (400, 403)
    assert await ask(relay, f"GET {SYMBOLS} HTTP/1.1", f"Host: {host}", f"Origin: http://{host}") in (400, 403)
    assert await ask(relay, f"GET {SYMBOLS} HTTP/1.1", "Host: localhost", f"Origin: http://{host}") == 403
    # What stands behind a slash is another path.
    assert await ask(relay, f"GET http://{host}{SYMBOLS} HTTP/1.1", "Host: localhost") in (400, 404)


@pytest.mark.parametrize("host", ["xn--.localhost-", "xn--", "xn--a.localhost", "a.xn--", f"xn--{'9' * 59}.localhost"])
async def test_host_at_which_a_parser_fails_is_answered(relay: Running, host: str) -> None:
    for path in ("/", SYMBOLS, "/healthz", "/nowhere"):
        async with asyncio.timeout(30):
            assert await ask(relay, f"GET http://{host}{path} HTTP/1.1", f"Host: {host}") == 400
            assert await ask(relay, f"GET http://{host}{path} HTTP/1.1", "Host: localhost") == 400


@pytest.mark.parametrize("path", ["/", "/client.js", "/docs", "/openapi.json", SYMBOLS])
async def test_host_that_is_none_gets_nothing(relay: Running, path: str) -> None:
    for host in ("xn--.localhost-", "[::1", "localhost:99999", "a b", "a..b"):
        assert await ask(relay, f"GET {path} HTTP/1.1", f"Host: {host}") in (400, 403)
    assert await ask(relay, f"GET {path} HTTP/1.1", "Host: localhost") == 200


async def test_a_request_names_its_host_once(relay: Running) -> None:
    first = f"GET {SYMBOLS} HTTP/1.1"
    assert await ask(relay, first, "Host: localhost") == 200
    assert await ask(relay, first, "Host: localhost", "Host: localhost") == 400
    assert await ask(relay, first, "Host: localhost", "Host: evil.example") == 400
    assert await ask(relay, first, "Host:") == 403
    assert await ask(relay, first) == 400
    assert await ask(relay, f"GET {SYMBOLS} HTTP/1.0") == 200
    assert await ask(relay, f"GET http://localhost{SYMBOLS} HTTP/1.1", "Host: localhost") == 200
    assert await ask(relay, f"GET http://evil.example{SYMBOLS} HTTP/1.1", "Host: localhost") == 400
    assert await ask(relay, f"GET http://localhost{SYMBOLS} HTTP/1.1", "Host: evil.example") == 400
    assert await ask(relay, f"GET http://evil.example{SYMBOLS} HTTP/1.1", "Host: evil.example") == 403


async def test_a_request_has_one_origin(relay: Running) -> None:
    first = [f"GET {SYMBOLS} HTTP/1.1", "Host: localhost"]
    assert await ask(relay, *first, "Origin: http://localhost") == 200
    assert await ask(relay, *first, "Origin: http://localhost:80") == 200
    for origin in ("http://localhost, http://localhost", "http://localhost/", "localhost", "//localhost", "http://",
                   "http:localhost", "ftp://localhost", "http://localhost:443", "http://a@localhost"):  # fmt: skip
        assert await ask(relay, *first, f"Origin: {origin}") == 403, origin
    assert await ask(relay, *first, "Origin: http://localhost", "Origin: http://evil.example") == 403


# -- addresses behind proxies ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4", "10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.1", ["[2001:db8::7]:5678"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("::ffff:10.0.0.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        (None, ["1.2.3.4"], "unknown"),
    ],
)
def test_client_is_the_first_address_from_the_right_that_is_no_trusted_proxy(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    assert client_address(peer, forwarded, networks(["10.0.0.0/8"])) == client


def test_limits_count_a_whole_ipv6_network_as_one() -> None:
    assert owner_of("2001:db8:1:2:3:4:5:6") == owner_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert owner_of("2001:db8:1:3::1") != owner_of("2001:db8:1:2::1")
    assert (owner_of("192.0.2.1"), owner_of("::1")) == ("192.0.2.1", "::1")


async def test_limits_count_the_client_behind_a_trusted_proxy_and_nobody_else_may_say_who_it_is(
    relay_with: StartRelay,
) -> None:
    relay = await relay_with(max_clients_per_address=1, trusted_proxies=networks(["127.0.0.1"]))
    clients = []
    for address in ("192.0.2.1", "192.0.2.2"):
        clients.append(await relay.connect(headers={"X-Forwarded-For": f"6.6.6.6, {address}"}))
        assert (await refusal(relay.connect(headers={"X-Forwarded-For": address}))).status == 429
    open_relay = await relay_with(max_clients_per_address=1)
    clients.append(await open_relay.connect(headers={"X-Forwarded-For": "192.0.2.1"}))
    assert (await refusal(open_relay.connect(headers={"X-Forwarded-For": "192.0.2.2"}))).status == 429


# -- CORS ------------------------------------------------------------------------------------------


async def test_cors_headers_go_to_allowed_origins_only(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=(PAGE,))
    good = await relay.get("symbols", headers={"Origin": PAGE})
    assert good.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Retry-After" in good.headers["Access-Control-Expose-Headers"]
    assert good.headers["Vary"] == "Accept-Encoding, Origin"
    # A page has to be able to read why it was refused.
    bad = await relay.get("history?symbol=NOPE&interval=1m", headers={"Origin": PAGE})
    assert (bad.status, bad.headers["Access-Control-Allow-Origin"]) == (404, PAGE)
    plain = await relay.get("symbols")
    assert "Access-Control-Allow-Origin" not in plain.headers
    assert plain.headers["Vary"] == "Accept-Encoding, Origin"


async def test_preflight_is_answered_without_a_token(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=(PAGE,), tokens=("opensesame",))
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    answer = await relay.get("symbols", method="OPTIONS", headers=asks)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, If-None-Match, Last-Event-ID"
    strange = await relay.get("symbols", method="OPTIONS", headers={**asks, "Origin": "https://evil.example"})
    assert_problem(strange, 403, "forbidden")


# -- numbers ---------------------------------------------------------------------------------------


async def test_full_relay_answers_503_with_retry_after(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(max_clients=2)
    clients = [await one.subscriber(relay, "BTCUSDT@1m") for one in TRANSPORTS]
    assert_problem(await over.refusal(relay), 503, "internal")
    assert (await relay.get("symbols")).status == 200
    await clients[0].close()
    await eventually(lambda: relay.access.clients == 1)
    await over.subscriber(relay, "BTCUSDT@1m")


async def test_too_many_connections_of_one_address_answer_429(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(max_clients_per_address=2)
    clients = [await one.subscriber(relay, "BTCUSDT@1m") for one in TRANSPORTS]
    assert_problem(await over.refusal(relay), 429, "rate_limited", "too many connections from one address", "2")
    await clients[0].close()
    await eventually(lambda: relay.access.clients == 1)
    await over.subscriber(relay, "BTCUSDT@1m")


async def test_refused_clients_are_not_counted(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(max_clients=1, tokens=("opensesame",))
    for _ in range(5):
        await over.refusal(relay)
        answer = await relay.get("ws", headers={**UPGRADE, "Sec-WebSocket-Version": "6"}, token="opensesame")
        assert answer.status == 400
    assert relay.access.clients == 0
    await over.subscriber(relay, "BTCUSDT@1m", token="opensesame")


# -- rates -----------------------------------------------------------------------------------------


async def test_connections_above_the_rate_answer_429_also_with_wrong_tokens(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with(max_connects_per_minute=4, tokens=("opensesame",))
    for one in TRANSPORTS:
        await (await one.subscriber(relay, "BTCUSDT@1m", token="opensesame")).close()
        assert_problem(await one.refusal(relay, token="guess"), 401, "unauthorized")
    for token in ("opensesame", None):
        refused = await over.refusal(relay, token=token)
        assert_problem(refused, 429, "rate_limited", "more than 4 new connections per minute")
        # One in 15 s.
        assert 10 <= int(refused.headers["Retry-After"]) <= 15
    assert (await relay.get("symbols", headers={"Authorization": "Bearer opensesame"})).status == 200


async def test_websocket_address_says_without_an_upgrade_what_an_attempt_would_meet(relay_with: StartRelay) -> None:
    relay = await relay_with(max_connects_per_minute=1)
    assert_problem(await relay.get("ws"), 400, "invalid_request", "ws://")
    async with RelayClient(relay.url) as client:
        await anext(client)
    for _ in range(2):
        answer = await relay.get("ws")
        assert_problem(answer, 429, "rate_limited", "new connections per minute")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_requests_above_the_rate_answer_429_and_health_goes_on(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second_per_address=0.5, trusted_proxies=networks(["127.0.0.1"]))
    mine = {"X-Forwarded-For": "192.0.2.1"}
    answers = [await relay.get(path, headers=mine) for path in ("symbols", "/nothing", "symbols", "/", "symbols")]
    assert [answer.status for answer in answers] == [200, 404, 200, 200, 200]
    refused = await relay.get("symbols", headers=mine)
    assert_problem(refused, 429, "rate_limited", "0.5 requests per second")
    assert int(refused.headers["Retry-After"]) <= 2
    assert (await relay.get("/healthz", headers=mine)).status == 200
    assert (await relay.get("symbols", headers={"X-Forwarded-For": "192.0.2.2"})).status == 200


async def test_programs_on_this_machine_are_limited_only_where_the_configuration_says_so(
    relay_with: StartRelay,
) -> None:
    addresses = AddressLimits(least_connects_per_minute=1, requests_per_second=0.1, rows_per_minute=1)
    relay = await relay_with(
        trusted_proxies=networks(["127.0.0.1"]), max_clients_per_address=1, limits=RelayLimits(addresses=addresses)
    )
    for _ in range(3):
        await (await relay.connect()).close()
        await eventually(lambda: relay.access.clients == 0)
    await (await relay.connect(headers={"X-Forwarded-For": "192.0.2.3"})).close()
    assert (await refusal(relay.connect(headers={"X-Forwarded-For": "192.0.2.3"}))).status == 429
    path = "history?symbol=BTCUSDT&interval=1m&limit=5"
    assert [(await relay.get(path)).status for _ in range(4)] == [200] * 4
    other = {"X-Forwarded-For": "192.0.2.1"}
    assert [(await relay.get("symbols", headers=other)).status for _ in range(2)] == [200, 429]
    other = {"X-Forwarded-For": "192.0.2.2"}
    assert (await relay.get(path, headers=other)).status == 200
    assert_problem(await relay.get(path, headers=other), 429, "rate_limited")
    relay.access.reconfigure(dataclasses.replace(relay.access.config, max_requests_per_second_per_address=0.1))
    assert [(await relay.get("symbols")).status for _ in range(2)] == [200, 429]


async def end_of(client: WsClient, *requests: dict[str, Any]) -> tuple[int | None, str, set[str]]:
    """Send requests over and over until the relay ends the connection; return how, and the codes of errors before."""

    async def flood() -> None:
        while True:
            for request in requests:
                await client.send(request)
            await asyncio.sleep(0)

    task = asyncio.create_task(flood())
    closed = await client.closing()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return closed.code, closed.reason, {message["code"] for message in client.received if message["type"] == "error"}


async def test_frames_of_all_connections_of_an_address_count_together(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second_per_address=1, trusted_proxies=networks(["127.0.0.1"]))
    flooding, sibling = [await relay.connect(headers={"X-Forwarded-For": "192.0.2.1"}) for _ in range(2)]
    other = await relay.connect(headers={"X-Forwarded-For": "192.0.2.2"})
    assert await end_of(flooding, {"action": "ping"}) == (4002, "rate limited", {"rate_limited"})
    await sibling.ask("ping", id=1)
    assert (await sibling.answer(1))["code"] == "rate_limited"
    assert_problem(await relay.get("symbols", headers={"X-Forwarded-For": "192.0.2.1"}), 429, "rate_limited")
    await other.ask("ping", id=1)
    assert (await other.answer(1))["type"] == "pong"


async def test_rate_of_one_client_is_its_own(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second=1)
    flooding, other = await relay.connect(), await relay.connect()
    assert await end_of(flooding, {"action": "ping"}) == (4002, "rate limited", {"rate_limited"})
    await other.ask("ping", id=1)
    assert (await other.answer(1))["type"] == "pong"


@pytest.mark.parametrize(
    ("address", "most"),
    [
        ("127.0.0.1", "more than 0.1 requests per second;"),
        ("192.0.2.1", "0.1 requests per second, or 1000 from one address;"),
    ],
)
async def test_refused_request_says_the_limits_that_hold_for_its_client(
    relay_with: StartRelay, address: str, most: str
) -> None:
    relay = await relay_with(max_requests_per_second=0.1, trusted_proxies=networks(["127.0.0.1"]))
    client = await relay.connect(headers={"X-Forwarded-For": address})
    await client.ask("ping", id=1)
    await client.ask("ping", id=2)
    assert most in (await client.answer(2))["message"]


async def test_new_limits_hold_for_clients_that_are_connected_too(relay_with: StartRelay) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", bars=10)
    # Until what that took is there again, at some thousand candles a minute.
    given_again_at = time.monotonic() + 0.1
    await eventually(lambda: time.monotonic() > given_again_at)
    changed = dataclasses.replace(relay.access.config, max_history_rows_per_minute=5, max_streams_per_client=2)
    relay.access.reconfigure(changed)
    relay.clients.reconfigure()
    await client.subscribe("BTCUSDT@1m", bars=10)
    await client.ask("subscribe", streams=["BTCUSDT@1m"], bars=11, id=1)
    assert (await client.answer(1))["code"] == "rate_limited"
    await client.ask("subscribe", streams=["ETHUSDT@1m", "ETHUSDT@5m"], id=2)
    assert [(await client.answer(2))["type"] for _ in range(2)] == ["subscription", "error"]
    changed = dataclasses.replace(changed, max_requests_per_second=0.1)
    relay.access.reconfigure(changed)
    relay.clients.reconfigure()
    assert await end_of(client, {"action": "ping"}) == (
        4002,
        "rate limited",
        {"rate_limited", "too_many_subscriptions"},
    )


async def test_history_rows_above_the_limit_of_an_address_answer_429(relay_with: StartRelay) -> None:
    relay = await relay_with(max_history_rows_per_minute_per_address=1000, trusted_proxies=networks(["127.0.0.1"]))
    mine, others = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    path = "history?symbol=BTCUSDT&interval=1m&limit=800"
    assert [(await relay.get(path, headers=mine)).status for _ in range(2)] == [200, 200]
    refused = await relay.get(path, headers=mine)
    assert_problem(refused, 429, "rate_limited", "1000 past candles")
    # 601 rows too many at 1000 a minute.
    assert 20 <= int(refused.headers["Retry-After"]) <= 37
    assert (await relay.get("symbols", headers=mine)).status == 200
    assert (await relay.get(path, headers=others)).status == 200
    for over in TRANSPORTS:
        client = await over.reader(relay, headers=mine)
        await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=10)
        error = await client.error()
        assert (error["code"], error["symbol"], error["interval"]) == ("rate_limited", "BTCUSDT", "1m")
        assert error["retry_after"] > 0
        # What is live costs no rows.
        await over.subscriber(relay, "BTCUSDT@1m", headers=mine)


def sent_by(token: str, address: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}


async def test_requests_count_for_the_token_whichever_addresses_they_come_from(relay_with: StartRelay) -> None:
    relay = await relay_with(
        tokens={"alice": "opensesame", "bob": "second"},
        max_requests_per_second_per_address=0.1,
        trusted_proxies=networks(["127.0.0.1"]),
    )
    assert (await relay.get("symbols", headers=sent_by("opensesame", "192.0.2.1"))).status == 200
    refused = await relay.get("symbols", headers=sent_by("opensesame", "192.0.2.2"))
    assert_problem(refused, 429, "rate_limited", "0.1 requests per second from one token")
    assert (await relay.get("symbols", headers=sent_by("second", "192.0.2.1"))).status == 200
    # Who has no valid token is an address, and cannot try one after the other.
    assert (await relay.get("symbols", headers=sent_by("guess", "192.0.2.1"))).status == 401
    refused = await relay.get("symbols", headers=sent_by("another", "192.0.2.1"))
    assert_problem(refused, 429, "rate_limited", "from one address")


async def test_history_rows_count_for_the_token_whichever_addresses_it_comes_from(relay_with: StartRelay) -> None:
    relay = await relay_with(
        tokens={"alice": "opensesame", "bob": "second"},
        max_history_rows_per_minute_per_address=1000,
        trusted_proxies=networks(["127.0.0.1"]),
    )
    path = "history?symbol=BTCUSDT&interval=1m&limit=5000"
    assert (await relay.get(path, headers=sent_by("opensesame", "192.0.2.1"))).status == 200
    refused = await relay.get(path, headers=sent_by("opensesame", "192.0.2.2"))
    assert_problem(refused, 429, "rate_limited", "one token can get at most 1000 past candles")
    assert (await relay.get(path, headers=sent_by("second", "192.0.2.1"))).status == 200
    for over in TRANSPORTS:
        for token, address in (("opensesame", "192.0.2.3"), ("second", "192.0.2.1")):
            client = await over.reader(relay, headers=sent_by(token, address))
            await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=10)
            assert (await client.error())["code"] == "rate_limited"


async def test_history_rows_above_the_limit_of_a_client_are_refused_then_it_is_closed(relay_with: StartRelay) -> None:
    relay = await relay_with(max_history_rows_per_minute=100)
    greedy, other = await relay.connect(), await relay.connect()
    await greedy.subscribe("BTCUSDT@1m", bars=500)
    await greedy.ask("subscribe", streams=["BTCUSDT@5m"], bars=1, id=1)
    assert (await greedy.answer(1))["code"] == "rate_limited"
    await other.subscribe("BTCUSDT@5m", bars=50)
    request = {"action": "subscribe", "streams": [f"{symbol}@1h" for symbol in ("BTCUSDT", "ETHUSDT")], "bars": 5}
    assert await end_of(greedy, request) == (4002, "rate limited", {"rate_limited"})
    await other.subscribe("ETHUSDT@5m", bars=40)


async def test_greedy_address_leaves_streams_for_others_and_may_have_what_is_carried(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with(max_streams=6, trusted_proxies=networks(["127.0.0.1"]), linger_seconds=30)
    mine, others = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    await over.subscriber(relay, "BTCUSDT@1m", "BTCUSDT@5m", headers=mine)
    await over.subscriber(relay, "BTCUSDT@1h", "BTCUSDT@1m", "BTCUSDT@4h", headers=mine)
    for _ in range(2):
        greedy = await over.reader(relay, headers=mine)
        await greedy.ask("subscribe", streams=["ETHUSDT@1m"])
        error = await greedy.error()
        assert (error["code"], error["symbol"]) == ("too_many_subscriptions", "ETHUSDT")
        assert "only 2 of 6" in error["message"]
    await over.subscriber(relay, "ETHUSDT@1m", headers=others)
    await over.subscriber(relay, "ETHUSDT@1m", headers=mine)
    other = await over.subscriber(relay, "BTCUSDT@1h", "ETHUSDT@5m", headers=others)
    await other.close()
    other = await over.reader(relay, headers=others)
    await other.ask("subscribe", streams=["ETHUSDT@1h"])
    assert "the maximum" in (await other.error())["message"]
