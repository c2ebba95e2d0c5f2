"""Holds what clients receive against the contracts that the relay serves: each test that receives is a contract test.

Clients ignore fields that they do not know, but here an unknown field is a fault: it would be undocumented.
"""

import copy
from functools import cache
from typing import Any

import jsonschema_rs

from relay.web.contract import asyncapi, openapi
from relay.web.facades.binance.facade import BinanceFacade
from relay.web.facades.facade import without_token
from relay.web.facades.udf.facade import UdfFacade
from relay.web.problems import CONTENT_TYPE

HTTP_ONLY = (405, 413, 431)
"""Refusals of HTTP itself; they are problems too, and no route documents them."""


class Undescribed(AssertionError):
    """A client received something that the contracts do not describe."""


def check_message(message: Any) -> None:
    """Hold one message of the relay against `/asyncapi.json`. Raises `Undescribed`."""
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "status":
        kind = "status of a stream" if "symbol" in message else "greeting"
    validator = message_validators().get(str(kind))
    if validator is None:
        raise Undescribed(f"relay/protocol/server_messages.py describes no message of type {kind!r}: {message!r}")
    _hold(validator, message, "relay/protocol/server_messages.py")


def check_answer(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    """Hold one answer of a REST route against `/openapi.json`. Raises `Undescribed`."""
    # Of a relay without the facade there is no such path.
    is_known, plain = status != 404 or content_type != CONTENT_TYPE, without_token(path)
    if is_known and plain in facade_contract()["paths"]:
        _check_facade_answer(method, plain, status, content_type, body)
        return
    if is_known and plain in udf_contract()["paths"]:
        _check_udf_answer(method, plain, status, content_type, body)
        return
    documented = rest_contract()["paths"].get(path, {}).get(method.lower())
    if content_type == CONTENT_TYPE:
        _hold(answer_validators()["Problem"], body, "relay/web/contract/response_types.py")
        if documented is None or status in HTTP_ONLY:
            return
    elif documented is None:
        return
    answer = documented["responses"].get(str(status))
    if answer is None:
        raise Undescribed(f"relay/web/contract/openapi.py does not say that {path} may answer {status}")
    if status == 200 and content_type not in answer["content"]:
        raise Undescribed(f"relay/web/contract/openapi.py does not say that {path} may answer {content_type}")
    if content_type == "application/json":
        _hold(answer_validators()[path], body, "relay/web/contract/response_types.py")


def _check_facade_answer(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    documented = facade_contract()["paths"][path].get(method.lower())
    if documented is None or status in HTTP_ONLY:
        return
    if str(status) not in documented["responses"] or content_type != "application/json":
        raise Undescribed(f"relay/web/facades/ does not say that {path} may answer {status} as {content_type}")
    _hold(facade_validators()[path if status == 200 else "error"], body, "relay/web/facades/")


def _check_udf_answer(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    documented = udf_contract()["paths"][path].get(method.lower())
    if documented is None or status in HTTP_ONLY:
        return
    answer = documented["responses"].get(str(status))
    if answer is None or (status == 200 and content_type not in answer["content"]):
        raise Undescribed(f"relay/web/facades/udf does not say that {path} may answer {status} as {content_type}")
    if status != 200 or content_type == "application/json":
        _hold(udf_validators()[path if status == 200 else "error"], body, "relay/web/facades/udf")


def check_event(message: Any) -> None:
    """Hold one message of the relay on a facade's WebSocket against its contract. Raises `Undescribed`."""
    name = "Result" if "result" in message else "RequestError" if "error" in message else "KlineEvent"
    _hold(event_validators()["CombinedEvent" if "stream" in message else name], message, "relay/web/facades/")


def openapi_faults(document: Any) -> list[str]:
    """Say what is wrong with a document by the standard."""
    # Not at the top: it takes a quarter of a second to import, and every worker imports this.
    from openapi_spec_validator import OpenAPIV31SpecValidator

    return [fault.message for fault in OpenAPIV31SpecValidator(document).iter_errors()]


def strict(schema: Any) -> Any:
    """Return a schema whose objects have no other properties than those it describes."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(one) for name, one in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


@cache
def rest_contract() -> Any:
    """Return the OpenAPI document with all that any configuration brings."""
    return openapi.document(["crypto", "forex"], ["binance", "twelve_data"], needs_token=True)


@cache
def facade_contract() -> Any:
    """Return the OpenAPI document of the routes for Binance's programs."""
    return BinanceFacade().openapi(needs_token=True)


@cache
def udf_contract() -> Any:
    """Return the OpenAPI document of the routes for charts."""
    return UdfFacade().openapi(needs_token=True)


@cache
def udf_live_contract() -> Any:
    """Return the AsyncAPI document of these."""
    return UdfFacade().asyncapi("localhost", "", is_secure=False, needs_token=True)


def check_row_message(message: Any, name: str) -> None:
    """Hold one message on the WebSocket of live rows against its contract. Raises `Undescribed`."""
    components = strict(copy.deepcopy(udf_live_contract()["components"]))
    _hold(_validator({"$ref": f"#/components/schemas/{name}"}, components), message, "relay/web/facades/udf")


@cache
def udf_validators() -> dict[str, jsonschema_rs.Validator]:
    """Return a validator for the JSON that each of these routes answers, and one for errors."""
    contract = udf_contract()
    components = strict(copy.deepcopy(contract["components"]))
    found = {"error": _validator({"$ref": "#/components/schemas/ChartError"}, components)}
    for path, methods in contract["paths"].items():
        content = methods["get"]["responses"]["200"]["content"].get("application/json")
        if content is not None:
            found[path] = _validator(content["schema"], components)
    return found


@cache
def facade_live_contract() -> Any:
    """Return the AsyncAPI document of these."""
    return BinanceFacade().asyncapi("localhost", "", is_secure=False, needs_token=True)


@cache
def facade_validators() -> dict[str, jsonschema_rs.Validator]:
    """Return a validator for what each of these routes answers, and one for errors."""
    contract = facade_contract()
    components = strict(copy.deepcopy(contract["components"]))
    found = {"error": _validator({"$ref": "#/components/schemas/BinanceError"}, components)}
    for path, methods in contract["paths"].items():
        content = methods["get"]["responses"]["200"]["content"]["application/json"]
        found[path] = _validator(content["schema"], components)
    return found


@cache
def event_validators() -> dict[str, jsonschema_rs.Validator]:
    """Return a validator for each message of the WebSocket for Binance's programs, by name."""
    components = strict(copy.deepcopy(facade_live_contract()["components"]))
    return {name: _validator({"$ref": f"#/components/schemas/{name}"}, components) for name in components["messages"]}


@cache
def live_contract() -> Any:
    """Return the AsyncAPI document."""
    return asyncapi.document("localhost", is_secure=False, needs_token=True)


@cache
def message_validators() -> dict[str, jsonschema_rs.Validator]:
    """Return a validator for each type of message."""
    found = {}
    components = strict(copy.deepcopy(live_contract()["components"]))
    for name, schema in components["schemas"].items():
        kind = schema["properties"].get("type", {}).get("const")
        if kind == "status":
            kind = "status of a stream" if "symbol" in schema["properties"] else "greeting"
        if kind is not None:
            found[kind] = _validator({"$ref": f"#/components/schemas/{name}"}, components)
    return found


@cache
def answer_validators() -> dict[str, jsonschema_rs.Validator]:
    """Return a validator for the JSON that each route answers, and one for problems."""
    contract = rest_contract()
    components = strict(copy.deepcopy(contract["components"]))
    found = {"Problem": _validator({"$ref": "#/components/schemas/Problem"}, components)}
    for path, methods in contract["paths"].items():
        content = methods["get"]["responses"]["200"]["content"].get("application/json")
        if content is not None:
            found[path] = _validator(content["schema"], components)
    return found


def _validator(schema: Any, components: Any) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": components})


def _hold(validator: jsonschema_rs.Validator, value: Any, place: str) -> None:
    if validator.is_valid(value):
        return
    faults = [f"at /{'/'.join(map(str, one.instance_path))}: {one.message}" for one in validator.iter_errors(value)]
    raise Undescribed(f"a client received what {place} does not describe: {'; '.join(faults)[:1500]}")
