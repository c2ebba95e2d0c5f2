import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import formatdate

import aiohttp
import pytest
from aiohttp import web

import relay.upstream.rest
from relay import (
    AuthenticationFailed,
    BadAnswer,
    Hosts,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    RestAnswer,
    ask_rest,
    retry_after_s,
)
from tests.support.loopback_server import app_of, loopback_server

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """Some hosts of one upstream; each does what the test put at its place."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.servers = AsyncExitStack()

    async def host(self, name: str, handler: Handler) -> str:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked.append(name)
            return await handler(request)

        return f"http://{await self.servers.enter_async_context(loopback_server(app_of(handle)))}"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with service.servers:
        yield service


def answering(status: int, text: str = "{}", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, headers=named)

    return handler


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def half_a_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b'{"a":')
    assert request.transport is not None
    request.transport.close()
    return response


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def test_an_answer_holds_status_headers_and_body(service: Service, session: aiohttp.ClientSession) -> None:
    hosts = Hosts([await service.host("a", answering(200, '[1,"x"]', X_Weight="3"))])
    answer = await ask_rest(session, hosts, "/klines", params={"symbol": "币安人生USDT"})
    assert (answer.status, answer.body, answer.headers["x-weight"]) == (200, [1, "x"], "3")


@pytest.mark.parametrize(
    "broken", [hang_up, half_a_body, answering(451), answering(403), answering(500), answering(503)]
)
async def test_the_next_host_is_asked_and_kept(
    service: Service, session: aiohttp.ClientSession, broken: Handler
) -> None:
    hosts = Hosts([await service.host("a", broken), await service.host("b", answering(200))])
    for _ in range(3):
        assert (await ask_rest(session, hosts, "/")).status == 200
    # aiohttp itself asks once more when a connection ends before any answer.
    assert service.asked[-3:] == ["b", "b", "b"]
    assert set(service.asked[:-3]) == {"a"}


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "http://no-such-host.invalid"])
async def test_a_host_that_cannot_be_reached_is_left(
    service: Service, session: aiohttp.ClientSession, unused_tcp_port: int, address: str
) -> None:
    hosts = Hosts([address.format(port=unused_tcp_port), await service.host("b", answering(200))])
    assert (await ask_rest(session, hosts, "/")).status == 200
    assert hosts.current.startswith("http://127.0.0.1")


@pytest.mark.parametrize("status", [400, 401, 404, 418, 429])
async def test_an_error_of_the_request_is_an_answer(
    service: Service, session: aiohttp.ClientSession, status: int
) -> None:
    hosts = Hosts([await service.host("a", answering(status, '{"code":1}')), await service.host("b", answering(200))])
    answer = await ask_rest(session, hosts, "/")
    assert (answer.status, answer.body) == (status, {"code": 1})
    assert service.asked == ["a"]


async def test_a_refusal_by_all_hosts_is_an_answer(service: Service, session: aiohttp.ClientSession) -> None:
    urls = [await service.host(name, answering(451, "no", Retry_After="5")) for name in "ab"]
    answer = await ask_rest(session, Hosts(urls), "/")
    assert (answer.status, answer.body) == (451, None)
    assert service.asked == ["a", "b"]
    assert isinstance(answer.error(""), ProviderUnavailable)


async def test_a_failure_of_all_hosts_is_unavailable(service: Service, session: aiohttp.ClientSession) -> None:
    hosts = Hosts([await service.host("a", answering(502)), await service.host("b", answering(500, '{"code":1}'))])
    with pytest.raises(ProviderUnavailable, match="HTTP 500"):
        await ask_rest(session, hosts, "/")
    assert service.asked == ["a", "b"]


async def test_tries_bound_how_many_hosts_are_asked(service: Service, session: aiohttp.ClientSession) -> None:
    hosts = Hosts([await service.host("a", answering(502)), await service.host("b", answering(200))])
    with pytest.raises(ProviderUnavailable):
        await ask_rest(session, hosts, "/", tries=1)
    assert (await ask_rest(session, hosts, "/", tries=1)).status == 200


async def test_after_a_timeout_the_next_call_asks_the_next_host(
    service: Service, session: aiohttp.ClientSession
) -> None:
    hosts = Hosts([await service.host("a", never), await service.host("b", answering(200))])
    with pytest.raises(ProviderTimeout, match=r"no answer within 0\.2 s"):
        await ask_rest(session, hosts, "/", timeout_s=0.2)
    assert (await ask_rest(session, hosts, "/")).status == 200
    assert service.asked == ["a", "b"]


@pytest.mark.parametrize("text", ["", "<html>", '{"a":', "NaN", "\xff"])
async def test_a_body_that_is_no_json_is_a_bad_answer(
    service: Service, session: aiohttp.ClientSession, text: str
) -> None:
    with pytest.raises(BadAnswer, match="not JSON"):
        await ask_rest(session, Hosts([await service.host("a", answering(200, text))]), "/")


async def test_a_redirect_is_not_followed(service: Service, session: aiohttp.ClientSession) -> None:
    elsewhere = await service.host("b", answering(200))
    hosts = Hosts([await service.host("a", answering(302, "{}", Location=elsewhere))])
    with pytest.raises(BadAnswer):
        await ask_rest(session, hosts, "/")
    assert service.asked == ["a"]


@pytest.mark.parametrize("handler", [hang_up, half_a_body, answering(500), answering(200, "no"), never])
async def test_no_error_and_no_log_names_the_address_or_the_key(
    service: Service, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, handler: Handler
) -> None:
    caplog.set_level(logging.DEBUG)
    hosts = Hosts([await service.host("a", handler)])
    with pytest.raises(ProviderError) as caught:
        await ask_rest(session, hosts, "/p", params={"k": "hush"}, headers={"Authorization": "hush"}, timeout_s=0.3)
    texts = [repr(caught.value), str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
    assert not any("hush" in text or "127.0.0.1" in text for text in texts)
    assert "hush" not in caplog.text.replace("GET /p?k=hush", "")


async def test_an_address_that_is_none_is_unavailable(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ProviderUnavailable):
        await ask_rest(session, Hosts(["nonsense"]), "/p")


def answer(status: int, **headers: str) -> RestAnswer:
    return RestAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadAnswer),
        (401, AuthenticationFailed),
        (403, ProviderUnavailable),
        (404, BadAnswer),
        (418, RateLimited),
        (429, RateLimited),
        (451, ProviderUnavailable),
        (503, ProviderUnavailable),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[ProviderError]) -> None:
    error = answer(status).error("why " + "x" * 9000)
    assert type(error) is kind
    assert str(error).startswith(f"HTTP {status}: why xxx")
    assert len(str(error)) < 4100


def test_retry_after_is_obeyed_and_a_minute_is_the_default() -> None:
    error, default = answer(429, Retry_After="17").error(""), answer(418).error("")
    assert isinstance(error, RateLimited)
    assert isinstance(default, RateLimited)
    assert (error.retry_after, default.retry_after) == (17.0, 60.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("٣", None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("999999999", relay.upstream.rest.MAX_RETRY_AFTER_S),
        ("9999999999999999999", None),
        (formatdate(1_770_000_090, usegmt=True), 90.0),
        (formatdate(1_769_999_000, usegmt=True), 0.0),
        ("Mon, 99 Xxx 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, 1_770_000_000.0) == seconds


def test_hosts_turn_once_for_one_failure() -> None:
    hosts = Hosts(["a/", "b", "c"])
    failed = hosts.current
    hosts.failed(failed)
    hosts.failed(failed)
    assert hosts.current == "b"
    hosts.failed("b")
    hosts.failed("c")
    assert hosts.current == "a"


def test_hosts_need_an_address() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Hosts([])


def test_a_reason_is_not_cut_within_a_key_before_it_is_concealed() -> None:
    key = "0123456789abcdef" * 2
    for length in range(150, 260, 7):
        assert key in str(RestAnswer(400, {}, None).error("x" * length + key))
