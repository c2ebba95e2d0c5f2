"""Large JSON is read in a thread that lets others run, and means what small JSON means."""

import asyncio
import json
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.json_reading import AT_ONCE, NoJson, parse, parse_in_turns, read_json
from tests.support.examples import examples

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
TEXTS = st.builds(lambda value, plain: json.dumps(value, ensure_ascii=not plain).encode(), VALUES, st.booleans())


WINDOWS = st.integers(1, 100)


def outcome(reader: Any, text: bytes) -> Any:
    try:
        return reader(text)
    except NoJson as error:
        return type(error)


@settings(max_examples=examples(15))
@given(TEXTS, WINDOWS)
def test_both_readers_read_the_same(text: bytes, window: int) -> None:
    assert parse_in_turns(text, window) == parse_in_turns(text) == parse(text) == orjson.loads(text)


DAMAGES = [b"", b",", b"]", b"}", b'"', b":", b"\\ud83d", b"\xff", b"NaN", b"[", b"{", b"-", b"0", b"e", b" ", b"\n"]


@settings(max_examples=examples(75))
@given(TEXTS, WINDOWS, st.integers(0, 60), st.sampled_from(DAMAGES))
def test_both_readers_refuse_the_same(text: bytes, window: int, at: int, damage: bytes) -> None:
    damaged = text[:at] + damage + text[at + 1 :]
    in_turns = partial(parse_in_turns, window=window)
    assert outcome(in_turns, damaged) == outcome(parse_in_turns, damaged) == outcome(parse, damaged)


@pytest.mark.parametrize(
    "text", [b"[NaN]", b"[Infinity]", b"[1e999]", b'["\\ud800"]', b"[1]]", b"", b"\xff", b"\xef\xbb\xbf[]"]
)
async def test_what_is_no_json_is_refused_at_any_size(text: bytes) -> None:
    for size in (0, AT_ONCE):
        with pytest.raises(NoJson, match="not JSON"):
            await read_json(b" " * size + text)


@pytest.mark.parametrize("depth", [20_000, AT_ONCE])
async def test_what_is_nested_too_deep_is_refused_by_name(depth: int) -> None:
    with pytest.raises(NoJson, match="nested too deep"):
        await read_json(b"[" * depth + b"]" * depth)


PAIR = {"symbol": "BTCUSDT", "filters": [{"filterType": "LOT_SIZE", "stepSize": "0.00001000"}] * 8, "isSpot": True}
LARGE: dict[str, bytes] = {
    "a list of instruments": orjson.dumps({"symbols": [PAIR] * 1000}),
    "arrays": b"[" + b"[]," * 90_000 + b"1]",
    "arrays in arrays": b"[" + b"[[[]]]," * 40_000 + b"1]",
    "arrays in an object": b'{"values":[' + b"[]," * 90_000 + b"1]}",
    "numbers": b"[" + b"1," * 135_000 + b"1]",
    "texts": b"[" + b'"",' * 90_000 + b"1]",
    "empty objects": b"[" + b"{}," * 90_000 + b"1]",
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(30_000)) + b"}",
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
async def test_loop_runs_while_a_large_text_is_read(text: bytes) -> None:
    assert len(text) > AT_ONCE
    reading = asyncio.create_task(read_json(text))
    turns = 0
    # More than enough: without the thread there are two, before it and when it is done.
    while turns <= 50 and not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 50
    assert await reading == orjson.loads(text)


def test_text_that_is_large_at_each_of_many_levels_is_not_read_again_and_again() -> None:
    """Each level that does not fit into a window is read once in vain."""
    deep = b"[" * 100 + b'"%b"' % (b"x" * 200) + b"]" * 100
    with pytest.raises(NoJson, match="nested too deep"):
        parse_in_turns(b"[" + b",".join([deep] * 1000) + b"]", window=200)
    assert parse_in_turns(deep) == orjson.loads(deep)
