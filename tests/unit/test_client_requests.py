"""What clients ask: no input breaks the checks, and what is refused is what the schemas forbid."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Code, RequestError
from relay.core.intervals import INTERVALS, parse_interval
from relay.protocol import client_requests as requests
from relay.protocol.symbol_names import parse_symbol


def fault_of(parse: Callable[[Any], object], value: object) -> RequestError | None:
    try:
        parse(value)
    except RequestError as fault:
        return fault
    return None


def whole(text: bytes) -> requests.Request:
    request = requests.parse_request(requests.parse_object(text))
    for name in request.names:
        requests.parse_target(name)
    return request


@pytest.mark.parametrize("text", ["1m", "1M", "1s", *INTERVALS])
def test_canonical_intervals_stay_as_they_are(text: str) -> None:
    assert parse_interval(text) == text


@pytest.mark.parametrize(
    ("text", "name"), [("1H", "1h"), ("4H", "4h"), ("12H", "12h"), ("1D", "1d"), ("3D", "3d"), ("1W", "1w")]
)
def test_upper_case_intervals_are_taken(text: str, name: str) -> None:
    assert parse_interval(text) == name


@pytest.mark.parametrize("text", ["", "m", "3M", "15M", "01m", " 1m", "1m ", "1min", "1\u0131", "7d"])
def test_other_intervals_are_unknown(text: str) -> None:
    with pytest.raises(RequestError, match="use one of 1s 1m") as refused:
        parse_interval(text)
    assert refused.value.code is Code.UNKNOWN_INTERVAL


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("btcusdt", (None, "BTCUSDT")),
        ("Binance:btcusdt", ("binance", "BTCUSDT")),
        ("EUR/usd", (None, "EUR/USD")),
        ("brk.b", (None, "BRK.B")),
        ("1000sats-usd_t", (None, "1000SATS-USD_T")),
        ("币安人生usdt", (None, "币安人生USDT")),
        ("A" * 48, (None, "A" * 48)),
        ("^gspc", (None, "^GSPC")),
        ("ES=F", (None, "ES=F")),
        ("m&m.ns", (None, "M&M.NS")),
        ("NQ1!", (None, "NQ1!")),
        (".dji", (None, ".DJI")),
        ("/es", (None, "/ES")),
        ("$SPX", (None, "$SPX")),
        ("#AAPL", (None, "#AAPL")),
        ("EURUSD+", (None, "EURUSD+")),
        ("1000PEPEUSDT", (None, "1000PEPEUSDT")),
        # No provider is called like that, whatever there is.
        ("BTC/USDT:USDT", (None, "BTC/USDT:USDT")),
        ("ccxt:BTC/USDT:USDT-261225", ("ccxt", "BTC/USDT:USDT-261225")),
        ("yahoo:^GSPC", ("yahoo", "^GSPC")),
        # The name of a provider comes on top.
        (f"binance:{'A' * 48}", ("binance", "A" * 48)),
    ],
)
def test_symbols_are_upper_case_and_may_be_pinned(text: str, parsed: tuple[str | None, str]) -> None:
    assert parse_symbol(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "A" * 49, f"binance:{'A' * 49}", "_A", "//A", "..", ".", "/", "^", ":A", "-A", "=A", "+A", "&A", "!A", "A B",
     "A@B", "A\n", "A\0", "A*", "😀", "A,B", "A;B", "A%2F", "A'", 'A"', "A\\B", "A(B)", "A~", "A\u200b", "A\u202eB"],
)  # fmt: skip
def test_other_texts_are_no_symbols(text: str) -> None:
    with pytest.raises(RequestError, match="48 letters") as refused:
        parse_symbol(text)
    assert refused.value.code is Code.UNKNOWN_SYMBOL


@given(st.text(max_size=300))
def test_any_symbol_is_taken_or_refused_by_a_short_printable_message(text: str) -> None:
    fault = fault_of(parse_symbol, text)
    if fault is None:
        assert parse_symbol(text)[1] == parse_symbol(text)[1].upper()
    else:
        assert fault.message.isprintable()
        assert len(fault.message) < 300


@pytest.mark.parametrize(
    ("text", "found"), [("-9223372036854775808", -(2**63)), ("18446744073709551615", 2**64 - 1), ('""', "")]
)
def test_id_is_any_string_or_integer_of_64_bits(text: str, found: str | int) -> None:
    assert requests.parse_id(requests.parse_object(f'{{"id":{text}}}')) == found


@pytest.mark.parametrize("text", ["18446744073709551616", "1.0", "true", "[]"])
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="neither a string nor an integer of 64 bits") as refused:
        requests.parse_id(requests.parse_object(f'{{"id":{text}}}'))
    assert refused.value.code is Code.INVALID_REQUEST


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(list(requests.ACTIONS)) | JSON,
        "id": JSON,
        "symbol": st.text(max_size=60) | JSON,
        "interval": st.sampled_from(INTERVALS) | JSON,
        "streams": st.lists(st.text(max_size=60) | JSON, max_size=5) | JSON,
        "bars": st.integers(-1, 6000) | JSON,
        "since": JSON,
        "throttle_ms": JSON,
        "closed_only": JSON,
    },
)


@given(REQUESTS | JSON)
def test_any_message_is_a_request_or_an_error_of_the_contract(value: Any) -> None:
    try:
        text = orjson.dumps(value)
    except TypeError:
        return
    fault = fault_of(whole, text)
    if fault is not None:
        assert fault.code in {
            "invalid_json", "invalid_request", "unknown_action", "unknown_symbol", "unknown_interval",
        }  # fmt: skip
        assert len(fault.message) < 500
    else:
        request = whole(text)
        assert request.action in requests.ACTIONS
        assert 0 <= (request.past.bars or 0) <= 5000
        assert 0 <= request.options.throttle_ms <= 60_000


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_an_error(data: bytes) -> None:
    fault = fault_of(requests.parse_object, data)
    assert fault is None or fault.code in (Code.INVALID_JSON, Code.INVALID_REQUEST)


def test_null_means_that_an_option_is_not_given() -> None:
    request = requests.parse_request(
        {"action": "subscribe", "symbol": "X", "interval": "1m", "bars": None, "since": None, "throttle_ms": None,
         "closed_only": None, "id": None, "streams": None}
    )  # fmt: skip
    assert request == requests.Request("subscribe", None, (("X", "1m"),))


def test_unknown_fields_are_ignored() -> None:
    assert requests.parse_request({"action": "ping", "colour": "red"}) == requests.Request("ping")


def test_a_stream_named_twice_counts_once() -> None:
    request = requests.parse_request({"action": "subscribe", "streams": ["A@1m", "A@1m", "B@1m"]})
    assert request.names == (("A@1m", ""), ("B@1m", ""))
