"""The contracts say what the relay does: each schema against the code that reads, builds and answers."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import CloseCode, RequestError
from relay.core.intervals import parse_interval
from relay.protocol.client_requests import ACTIONS, parse_object, parse_request
from relay.protocol.fields import INTERVAL
from relay.protocol.symbol_names import SYMBOL, parse_symbol
from relay.web.contract import asyncapi, openapi
from relay.web.contract.parameters import Parameter
from relay.web.contract.queries import END_TIME, INTERVAL_PARAMETER, LIMIT, START_TIME, SYMBOL_PARAMETER
from tests.conftest import StartRelay
from tests.support.contracts import (
    Undescribed,
    answer_validators,
    check_answer,
    check_message,
    live_contract,
    message_validators,
    openapi_faults,
    rest_contract,
)
from tests.support.running_relay import Running

TOKEN = "a-long-random-text-for-tests"
ASKED = ("Subscribe", "SubscribeMany", "Unsubscribe", "UnsubscribeMany", "List", "Ping")


def fits(schema: dict[str, Any], value: object) -> bool:
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


# -- the documents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("needs_token", [False, True])
def test_openapi_is_valid(needs_token: bool) -> None:
    found = openapi.document(["crypto", "forex"], ["binance", "twelve_data"], needs_token=needs_token)
    assert openapi_faults(found) == []


async def test_every_route_of_the_api_is_described_and_every_description_has_a_route(relay: Running) -> None:
    served = {route.resource.canonical for route in relay.app.router.routes() if route.resource is not None}
    described = set((await relay.get("/openapi.json")).body["paths"])
    assert described <= served
    # What facades serve is described by those whose protocol it is.
    assert {path for path in served if path.startswith("/api/v1/")} <= described | {asyncapi.ADDRESS}
    assert (await relay.get("/asyncapi.json")).body["channels"]["marketData"]["address"] == asyncapi.ADDRESS


async def test_contracts_need_no_token_and_say_whether_the_rest_does(relay_with: StartRelay) -> None:
    closed, opened = await relay_with(tokens=[TOKEN]), await relay_with()
    found = (await closed.get("/openapi.json")).body
    assert found["security"] == [{"bearer": []}]
    assert found["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in found["paths"]["/api/v1/market-data/history"]["get"]
    assert "401" in found["paths"]["/api/v1/market-data/history"]["get"]["responses"]
    assert len((await closed.get("/asyncapi.json")).body["servers"]["relay"]["security"]) == 2
    found = (await opened.get("/openapi.json")).body
    assert found["security"] == []
    assert "401" not in found["paths"]["/api/v1/market-data/history"]["get"]["responses"]
    assert "security" not in (await opened.get("/asyncapi.json")).body["servers"]["relay"]


async def test_asyncapi_names_the_address_that_the_client_came_by(relay: Running) -> None:
    found = (await relay.get("/asyncapi.json")).body["servers"]["relay"]
    assert (found["host"], found["protocol"]) == (relay.url.removeprefix("http://"), "ws")
    assert (await relay.get("/asyncapi.json", headers={"Host": 'a"<b>'})).status == 400


async def test_asset_classes_are_those_of_the_providers(relay: Running) -> None:
    found = (await relay.get("/openapi.json")).body["paths"]["/api/v1/market-data/symbols"]["get"]["parameters"]
    assert found[0]["schema"]["enum"] == ["crypto", "forex"]


async def test_answers_of_history_have_the_tag_that_is_described_for_them(relay: Running) -> None:
    # That `get` takes a 304 says that it is described.
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1h", "end_time": 1_764_000_000}
    found = await relay.get("history", **query)
    again = await relay.get("history", headers={"If-None-Match": found.headers["ETag"]}, **query)
    assert (again.status, again.text) == (304, "")
    described = rest_contract()["paths"]["/api/v1/market-data/history"]["get"]["responses"]
    for status, answer in (("200", found), ("304", again)):
        assert all(name in answer.headers for name in described[status]["headers"])


def test_examples_of_answers_fit_their_schemas() -> None:
    for path, methods in rest_contract()["paths"].items():
        content = methods["get"]["responses"]["200"]["content"].get("application/json", {})
        for shown in content.get("examples", {}).values():
            answer_validators()[path].validate(shown["value"])


def test_examples_of_messages_fit_their_schemas() -> None:
    for name, message in live_contract()["components"]["messages"].items():
        for shown in message["examples"]:
            if name in ASKED:
                parse_request(shown["payload"])
                assert fits(live_contract()["components"]["schemas"][name], shown["payload"])
            else:
                check_message(shown["payload"])


def test_examples_of_parameters_are_taken() -> None:
    for operation in openapi.OPERATIONS:
        for parameter in operation.query.parameters:
            if parameter.example is not None:
                assert fits(parameter.schema(), parameter.example)
                parameter.read(str(parameter.example))


def test_every_close_code_is_explained() -> None:
    text = live_contract()["channels"]["marketData"]["description"]
    assert set(asyncapi.CLOSING) == set(CloseCode)
    assert all(f"| {int(code)} |" in text for code in CloseCode)


# -- what clients send -----------------------------------------------------------------------------

OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text(max_size=5) | st.integers(-5, 5) | st.none() | st.booleans() | st.floats(0.1, 0.9),
    "bars": st.integers(-2, 2) | st.integers(4998, 5002) | st.none() | st.text(max_size=3) | st.booleans(),
    "since": st.integers(-2, 2) | st.integers(10**11 - 2, 10**11 + 2) | st.none() | st.floats(0.1, 0.9),
    "throttle_ms": st.integers(59_998, 60_002) | st.none() | st.lists(st.none(), max_size=1),
    "closed_only": st.booleans() | st.none() | st.integers(0, 1),
    "extended": st.booleans() | st.none() | st.integers(0, 1),
    "colour": st.text(max_size=3),
}
ONE: dict[str, st.SearchStrategy[Any]] = {
    "symbol": st.sampled_from(["BTCUSDT", "", "币安", "_A", "A B", None, 5]),
    "interval": st.sampled_from(["1m", "1H", "1S", "", "2M", "m", None, 1]),
}
MANY: dict[str, st.SearchStrategy[Any]] = {
    "streams": st.lists(st.text(max_size=3) | st.integers(-9, 9), max_size=3)
    | st.sampled_from([["A"] * 101, None, "A"])
}


def by_schema(message: dict[str, Any]) -> bool:
    schemas = live_contract()["components"]["schemas"]
    return any(fits(schemas[name], message) for name in ASKED)


def by_code(message: dict[str, Any]) -> bool:
    """Parse as the relay does, and check the one name that the schema describes."""
    try:
        request = parse_request(parse_object(json.dumps(message).encode()))
        if "streams" not in message:
            for symbol, interval in request.names:
                parse_symbol(symbol)
                parse_interval(interval)
    except RequestError:
        return False
    return True


@given(
    st.fixed_dictionaries({"action": st.sampled_from([*ACTIONS, "dance"])}, optional=ONE | OPTIONS)
    | st.fixed_dictionaries({"action": st.sampled_from([*ACTIONS, "dance"])}, optional=MANY | OPTIONS)
)
@example({"action": "subscribe", "symbol": "A", "interval": "1m", "bars": 5000, "since": 10**11, "throttle_ms": 60_000})
@example({"action": "subscribe", "streams": ["A"] * 100})
@example({"action": "subscribe", "streams": ["A"] * 101})
@example({"symbol": "A"})
@example({"action": "subscribe", "streams": [-(2**63) - 1]})
def test_a_request_fits_the_schema_if_and_only_if_the_relay_takes_it(message: dict[str, Any]) -> None:
    if message.get("streams") is None:
        message.pop("streams", None)  # null means that there are none, which no schema of one request says
    assert by_schema(message) == by_code(message)


@given(st.text(max_size=50))
@example("A" * 48)
@example("A" * 49)
def test_what_is_taken_as_a_symbol_fits_its_schema(text: str) -> None:
    try:
        parse_symbol(text)
    except RequestError:
        return
    assert fits(SYMBOL, text)
    assert re.search(SYMBOL["pattern"], text)


def test_the_schema_of_a_symbol_forbids_the_ascii_that_the_relay_refuses() -> None:
    for number in range(128):
        for text in (chr(number), f"A{chr(number)}"):
            assert fits(SYMBOL, text) == is_taken(SYMBOL_PARAMETER, text), text


def test_the_intervals_of_the_schema_are_those_that_are_taken() -> None:
    texts = [f"{number}{unit}" for number in range(40) for unit in "smhdwMSHDWy"]
    for text in [*texts, " 1m", "1m ", "01m", "1 m", "m1", ""]:
        assert is_taken(INTERVAL_PARAMETER, text) == fits(INTERVAL, text), text


def is_taken(parameter: Parameter[Any], text: str) -> bool:
    try:
        parameter.read(text)
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("parameter", [LIMIT, START_TIME, END_TIME])
@given(number=st.integers(-3, 6000) | st.integers(10**11 - 2, 10**11 + 2))
def test_a_number_is_taken_if_and_only_if_it_fits_the_schema(parameter: Parameter[int], number: int) -> None:
    assert fits(parameter.schema(), number) == is_taken(parameter, str(number))


# -- the checks that all other tests make ----------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"type": "pong", "server_time": 1, "colour": "red"},
        {"type": "pong", "server_time": "1"},
        {"type": "pong"},
        {"type": "surprise"},
        {"type": "status", "status": "sleepy", "symbol": "A", "interval": "1m", "message": ""},
        {"type": "error", "code": "oops", "message": ""},
        [],
    ],
)
def test_a_message_that_is_not_described_is_noticed(message: object) -> None:
    with pytest.raises(Undescribed, match=r"relay/protocol/server_messages\.py"):
        check_message(message)


def test_each_message_of_the_relay_has_a_validator() -> None:
    assert len(message_validators()) == len(live_contract()["components"]["messages"]) - len(ASKED)


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        ("/healthz", 200, "application/json", {"status": "ok", "mood": "fine"}),
        ("/healthz", 200, "application/json", {}),
        ("/healthz", 200, "text/plain", None),
        ("/healthz", 418, "application/json", {"status": "ok"}),
        ("/healthz", 404, "application/problem+json", {"status": 404}),
        ("/api/v1/market-data/symbols", 200, "application/json", [1]),
    ],
)
def test_an_answer_that_is_not_described_is_noticed(path: str, status: int, content_type: str, body: object) -> None:
    with pytest.raises(Undescribed, match="relay/web/"):
        check_answer("GET", path, status, content_type, body)


def test_extended_candles_are_declared() -> None:
    fields = ("quote_volume", "trades", "taker_volume", "taker_quote_volume")
    rest = openapi.document(["crypto"], ["binance"], needs_token=False)
    for document in (live_contract(), rest):
        candle = document["components"]["schemas"]["CandleObject"]
        assert {*fields} <= candle["properties"].keys()
        assert not {*fields} & {*candle["required"]}
        assert all("null" in str(candle["properties"][name]) for name in fields)
    parameters = rest["paths"]["/api/v1/market-data/history"]["get"]["parameters"]
    assert [one["schema"] for one in parameters if one.get("name") == "extended"] == [
        {"type": "boolean", "default": False}
    ]
    assert "extended" in live_contract()["components"]["schemas"]["Subscribe"]["properties"]
