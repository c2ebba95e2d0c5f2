"""Turns the types of messages and answers into JSON Schema, so that the contracts describe what the code is checked by.

In `Annotated`, a text is the description and a dict is more of the schema.
"""

import inspect
import types
from enum import StrEnum
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from relay.protocol.fields import Schema

_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_PLACE = "#/components/schemas/"


class Schemas:
    """Schemas of types by name; those of objects are referred to, never repeated."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, hint: Any) -> Schema:
        """Return the schema of a type. Raises `TypeError` for one that JSON cannot hold."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(arguments)
        if origin is NotRequired:
            return self.of(arguments[0])
        if hint in _PLAIN:
            return {"type": _PLAIN[hint]}
        if origin is Literal:
            return _one_of(list(arguments))
        if origin in (Union, types.UnionType):
            return self._union(arguments)
        if origin is list:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            return _one_of([str(one) for one in hint])
        if is_typeddict(hint):
            return self._object(hint)
        raise TypeError(f"{hint!r} has no JSON Schema")

    def _annotated(self, arguments: tuple[Any, ...]) -> Schema:
        found = dict(self.of(arguments[0]))
        if "$ref" in found:
            # What stands beside a reference is ignored by readers of older drafts: the object describes itself.
            return found
        for said in arguments[1:]:
            found |= {"description": said} if isinstance(said, str) else said
        return found

    def _union(self, arguments: tuple[Any, ...]) -> Schema:
        found = [self.of(one) for one in arguments]
        if all(set(one) == {"type"} for one in found):
            return {"type": [one["type"] for one in found]}
        return {"anyOf": found}

    def _object(self, hint: Any) -> Schema:
        name: str = hint.__name__
        if name not in self.components:
            found = self.components[name] = {"type": "object", "description": inspect.getdoc(hint)}
            fields = get_type_hints(hint, include_extras=True)
            found["properties"] = {field: self.of(kind) for field, kind in fields.items()}
            found["required"] = [field for field in fields if field in hint.__required_keys__]
        return {"$ref": _PLACE + name}


def _one_of(values: list[Any]) -> Schema:
    if len(values) == 1:
        return {"type": _PLAIN[type(values[0])], "const": values[0]}
    return {"type": "string", "enum": values}
