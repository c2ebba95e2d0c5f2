"""The contract of the routes for charts says what these do; every answer that tests receive is held against it."""

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from relay.web.facades.udf.facade import UdfFacade
from tests.conftest import StartRelay
from tests.support.contracts import Undescribed, check_answer, udf_contract
from tests.support.running_relay import Running

TOKEN = "a-long-random-text-for-tests"


@pytest.mark.parametrize("needs_token", [False, True])
def test_it_is_valid(needs_token: bool) -> None:
    found = UdfFacade().openapi(needs_token=needs_token)
    assert [fault.message for fault in OpenAPIV31SpecValidator(found).iter_errors()] == []
    names = [methods["get"]["operationId"] for methods in found["paths"].values()]
    assert len({*names}) == len(names)


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    assert {route.path for route in UdfFacade().routes()} == {*udf_contract()["paths"], "/udf/{rest:.*}"}


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
    # The protocol has no WebSocket.
    assert (await relay.get("/asyncapi/udf.json")).status == 404
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
