"""How faults of the network and answers of the relay become errors in plain words."""

import re

import aiohttp
import pytest

from relay.client import Code
from relay.client.errors import refusal, unreachable

HERE = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (TimeoutError(), "no answer in time"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 8000)"), "connection refused"),
        (aiohttp.ServerDisconnectedError(), "closed the connection without an answer.*https://"),
        (aiohttp.ClientPayloadError("two\n lines"), "two lines"),
        (aiohttp.ClientPayloadError(), "ClientPayloadError"),
        (UnicodeError("label too long"), "label too long"),
    ],
)
def test_reason_is_one_line_in_plain_words(fault: Exception, words: str) -> None:
    message = str(unreachable(HERE, fault))
    assert message.startswith("no relay reached at http://127.0.0.1:8000: ")
    assert re.search(words, message)
    assert "\n" not in message


def test_refusal_takes_the_words_of_the_problem() -> None:
    body = b'{"title":"Too many","detail":"wait a little","code":"rate_limited"}'
    refused = refusal(HERE, 429, {"Retry-After": "2.5"}, body)
    assert (str(refused), refused.title, refused.code) == ("wait a little", "Too many", "rate_limited")
    assert refused.code is Code.RATE_LIMITED
    assert refused.retry_after == 2.5
    assert refusal(HERE, 400, {}, b'{"code":"of_a_newer_relay"}').code == "of_a_newer_relay"
    assert str(refusal(HERE, 429, {}, b'{"title":"Too many"}')) == "Too many"


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"detail":null}'])
def test_refusal_without_words_is_explained_by_its_status(body: bytes) -> None:
    refused = refusal(HERE, 503, None, body)
    assert "full, starting or shutting down" in refused.detail
    assert (refused.code, refused.title, refused.retry_after) == ("internal", "", None)


@pytest.mark.parametrize("value", ["soon", "", "inf", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_that_is_no_number_of_seconds_is_none(value: str) -> None:
    assert refusal(HERE, 503, {"Retry-After": value}).retry_after is None


@pytest.mark.parametrize(
    ("status", "code"), [(401, "unauthorized"), (403, "forbidden"), (429, "rate_limited"), (503, "internal"), (500, "")]
)
def test_refusal_without_a_code_has_the_one_that_its_status_means(status: int, code: str) -> None:
    assert refusal(HERE, status, None).code == code
    assert refusal(HERE, status, None, b'{"code":"provider_unavailable"}').code == "provider_unavailable"
