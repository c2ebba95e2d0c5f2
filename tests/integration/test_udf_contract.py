"""The contract of the routes for charts says what these do; every answer that tests receive is held against it."""

import jsonschema_rs
import pytest

from relay.web.facades.udf.described_rows import EXAMPLES
from relay.web.facades.udf.facade import UdfFacade
from tests.conftest import StartRelay
from tests.support.contracts import (
    Undescribed,
    check_answer,
    check_row_message,
    openapi_faults,
    udf_contract,
    udf_live_contract,
)
from tests.support.running_relay import Running

TOKEN = "a-long-random-text-for-tests"


@pytest.mark.parametrize("needs_token", [False, True])
def test_it_is_valid(needs_token: bool) -> None:
    found = UdfFacade().openapi(needs_token=needs_token)
    assert openapi_faults(found) == []
    names = [methods["get"]["operationId"] for methods in found["paths"].values()]
    assert len({*names}) == len(names)


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    (channel,) = udf_live_contract()["channels"].values()
    served = {route.path for route in UdfFacade().routes()} - {"/udf/{rest:.*}"}
    assert served == {*udf_contract()["paths"], channel["address"]}


def test_examples_of_messages_fit() -> None:
    assert {*EXAMPLES} == {*udf_live_contract()["components"]["messages"]}
    for name, example in EXAMPLES.items():
        check_row_message(example, name)
    with pytest.raises(Undescribed):
        check_row_message({"symbol": "BTCUSDT", "price": 1.0}, "GridRow")


async def test_each_route_can_be_asked_as_its_examples_say(relay: Running) -> None:
    for path, methods in udf_contract()["paths"].items():
        parameters = methods["get"]["parameters"]
        for one in parameters:
            assert jsonschema_rs.Draft202012Validator(one["schema"]).is_valid(one["example"])
        needed = {one["name"]: one["example"] for one in parameters if one["required"]}
        assert (await relay.get(path, **{one["name"]: one["example"] for one in parameters})).status == 200
        for name in needed:
            rest = {one["name"]: one["example"] for one in parameters if one["name"] != name}
            answer = await relay.get(path, **rest)
            assert (answer.status, answer.body["errmsg"]) == (400, f"{name} is missing")


async def test_it_is_served_without_a_token_and_names_the_address_with_one(relay_with: StartRelay) -> None:
    relay, opened = await relay_with(tokens=[TOKEN]), await relay_with()
    found = (await relay.get("/openapi/udf.json")).body
    assert found == udf_contract()
    assert [server["url"] for server in found["servers"]] == ["../", "../t/{token}"]
    assert len((await opened.get("/openapi/udf.json")).body["servers"]) == 1
    live = (await relay.get("/asyncapi/udf.json")).body["servers"]["relay"]
    assert (live["host"], live["pathname"]) == (relay.url.removeprefix("http://"), "/t/{token}")
    assert "pathname" not in (await opened.get("/asyncapi/udf.json")).body["servers"]["relay"]
    assert (await (await relay_with(facades=("binance",))).get("/openapi/udf.json")).status == 404


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/udf/config", 200, {"supports_search": True}),
        ("/udf/history", 200, {"s": "ok", "t": [1]}),
        ("/udf/history", 418, {"s": "error", "errmsg": ""}),
        ("/udf/symbols", 404, {"s": "error"}),
    ],
)
def test_an_answer_that_is_not_described_is_noticed(path: str, status: int, body: object) -> None:
    with pytest.raises(Undescribed, match="relay/web/facades/udf"):
        check_answer("GET", path, status, "application/json", body)
