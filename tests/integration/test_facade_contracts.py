"""The contracts of the routes for Binance's programs say what these do: each against what reads and answers.

Every answer and event that other tests of the facade receive is held against them as well.
"""

from typing import Any

import jsonschema_rs
import pytest

from relay.web.contract.routes import ROUTES
from relay.web.facades.binance.described_streams import EXAMPLES
from relay.web.facades.binance.facade import BinanceFacade
from relay.web.facades.binance.pass_through import PASSED_CALLS
from relay.web.facades.binance.venue_markets import MARKETS, VenueMarket
from tests.conftest import StartRelay
from tests.support.contracts import (
    Undescribed,
    check_answer,
    check_event,
    event_validators,
    facade_contract,
    facade_live_contract,
    facade_validators,
    openapi_faults,
)
from tests.support.running_relay import Running

TOKEN = "a-long-random-text-for-tests"


def is_catching_all(path: str) -> bool:
    return path.endswith("/{rest:.*}")


@pytest.mark.parametrize("needs_token", [False, True])
def test_it_is_valid(needs_token: bool) -> None:
    found = BinanceFacade().openapi(needs_token=needs_token)
    assert openapi_faults(found) == []
    names = [methods["get"]["operationId"] for methods in found["paths"].values()]
    assert len({*names}) == len(names)


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    served = {route.path for route in BinanceFacade().routes() if not is_catching_all(route.path)}
    addresses = {channel["address"] for channel in facade_live_contract()["channels"].values()}
    assert served == {*facade_contract()["paths"], *(one.replace("{streams}", "{names:.*}") for one in addresses)}


@pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.provider)
async def test_each_parameter_is_read_and_no_other(relay: Running, market: VenueMarket) -> None:
    root = market.root
    paths = [path for path in facade_contract()["paths"] if path.startswith(root)]
    for path in paths:
        described = [one for one in facade_contract()["paths"][path]["get"]["parameters"] if one["in"] == "query"]
        needed = {one["name"]: one["example"] for one in described if one["required"]}
        assert (await relay.get(path, **needed, colour="red")).body["code"] in (-1101, -1104)
        for one in described:
            # Not refused as one that nobody knows; what becomes of it is another matter.
            answer = await relay.get(path, **(needed | {one["name"]: one.get("example", 1)}))
            assert answer.status == 200 or answer.body["code"] not in (-1101, -1104), (path, one["name"], answer)
        for name in needed:
            rest = {other: value for other, value in needed.items() if other != name}
            assert (await relay.get(path, **rest)).body["code"] == -1102
    assert {path.removeprefix(f"{root}/") for path in paths} >= {*PASSED_CALLS[market.provider], "klines"}


async def test_it_is_served_without_a_token_and_names_the_address_with_one(relay_with: StartRelay) -> None:
    relay, opened = await relay_with(tokens=[TOKEN]), await relay_with()
    rest = (await relay.get("/openapi/binance.json")).body
    assert rest == facade_contract()
    assert [server["url"] for server in rest["servers"]] == ["../", "../t/{token}"]
    assert len((await opened.get("/openapi/binance.json")).body["servers"]) == 1
    live = (await relay.get("/asyncapi/binance.json")).body["servers"]["relay"]
    assert (live["host"], live["pathname"]) == (relay.url.removeprefix("http://"), "/t/{token}")
    assert "pathname" not in (await opened.get("/asyncapi/binance.json")).body["servers"]["relay"]
    assert (await opened.get("/openapi/nope.json")).status == 404
    assert (await (await relay_with(facades=())).get("/openapi/binance.json")).status == 404
    assert {"/openapi/{facade}.json", "/asyncapi/{facade}.json"} <= {route.path for route in ROUTES}


def test_examples_fit() -> None:
    for path, methods in facade_contract()["paths"].items():
        content = methods["get"]["responses"]["200"]["content"]["application/json"]
        for shown in content.get("examples", {}).values():
            facade_validators()[path].validate(shown["value"])
        for one in methods["get"]["parameters"]:
            if "example" in one:
                assert jsonschema_rs.Draft202012Validator(one["schema"]).is_valid(one["example"])
    assert {*EXAMPLES} == {*event_validators()}
    for name, example in EXAMPLES.items():
        event_validators()[name].validate(example)


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        ("/api/v3/ping", 200, "application/json", {"pong": 1}),
        ("/api/v3/ping", 418, "application/json", {"code": -1003, "msg": ""}),
        ("/api/v3/ping", 400, "application/json", {"code": "x", "msg": ""}),
        ("/api/v3/klines", 200, "application/json", [[1]]),
        ("/api/v3/time", 200, "text/plain", None),
    ],
)
def test_an_answer_that_is_not_described_is_noticed(path: str, status: int, content_type: str, body: Any) -> None:
    with pytest.raises(Undescribed, match="relay/web/facades/"):
        check_answer("GET", path, status, content_type, body)


def test_an_event_that_is_not_described_is_noticed() -> None:
    for message in ({"e": "trade"}, {"result": 1, "id": 1}, {"stream": "x", "data": {}}):
        with pytest.raises(Undescribed, match="relay/web/facades/"):
            check_event(message)
