"""What may be meant by a symbol that nobody lists, by an interval and by a time that are written in another way."""

from itertools import chain, islice

import pytest

from relay.core.errors import RequestError
from relay.core.intervals import INTERVALS, parse_interval
from relay.instruments.spellings import other_spellings, typing_errors
from relay.protocol.fields import IntervalText, Moment, Spans, parse_date
from relay.protocol.symbol_names import parse_symbol
from relay.web.contract.parameters import TimeInAddress

LISTED = [
    "BTCUSDT", "BTCUSDC", "BTCEUR", "ETHUSDT", "ETHBTC", "EUR/USD", "USD/JPY", "XAU/USD", "GBP/USD", "BRK.A", "^GSPC",
    "ES=F", "NQ1!", "CL2!", "M&M.NS", "BTC/USD:USD",
]  # fmt: skip


def meant(asked: str) -> str | None:
    spellings = chain(other_spellings(asked), typing_errors(asked))
    return next((spelling for spelling in spellings if spelling in LISTED), None)


@pytest.mark.parametrize(
    ("asked", "symbol"),
    [
        ("BTC/USDT", "BTCUSDT"), ("BTC-USDT", "BTCUSDT"), ("btc_usdt", "BTCUSDT"), ("BTC:USDT", "BTCUSDT"),
        ("BTC-USD", "BTCUSDT"), ("BTCUSD", "BTCUSDT"), ("XBTUSD", "BTCUSDT"), ("XBT/USD", "BTCUSDT"),
        ("bitcoinusdt", "BTCUSDT"),
        ("kraken:BTCUSDT", "BTCUSDT"), ("KRAKEN:BTC/USD", "BTCUSDT"), ("oanda:EURUSD", "EUR/USD"),
        ("EURUSD", "EUR/USD"), ("EUR-USD", "EUR/USD"), ("eur", "EUR/USD"), ("euro", "EUR/USD"), ("gold", "XAU/USD"),
        ("XAUUSD", "XAU/USD"), ("USDJPY", "USD/JPY"),
        ("bitcoin", "BTCUSDT"), ("Ethereum", "ETHUSDT"), ("BTC", "BTCUSDT"), ("ETH/BTC", "ETHBTC"),
        ("BTCUSTD", "BTCUSDT"), ("BTCUST", "BTCUSDT"), ("BTCUSDTT", "BTCUSDT"), ("BTXUSDT", "BTCUSDT"),
        ("EUR/USDD", "EUR/USD"), ("EURUSF", "EUR/USD"),
        ("GSPC", "^GSPC"), ("$GSPC", "^GSPC"), ("^GSPX", "^GSPC"), ("ES", "ES=F"), ("NQ", "NQ1!"),
        ("NQ1", "NQ1!"), ("cl2", "CL2!"), ("m&m.ns", "M&M.NS"),
        ("MM.NS", None), ("btc/usd:usd", "BTC/USD:USD"), ("yahoo:^gspc", "^GSPC"),
        ("NOSUCHSYMBOL", None), ("A", None), ("...", None), ("9" * 48, None), ("A/" * 24, None),
    ],
)  # fmt: skip
def test_what_people_write_leads_to_what_they_mean(asked: str, symbol: str | None) -> None:
    assert meant(asked) == symbol


@pytest.mark.parametrize("asked", ["X" * 48, "A:B/" * 12, "Ä" * 48, "BTC-USD-PERP-20261225", "ABCDEFGHIJKLMNOP"])
def test_there_are_few_enough_to_look_them_all_up(asked: str) -> None:
    assert len(list(islice(chain(other_spellings(asked), typing_errors(asked)), 4001))) <= 4000


@pytest.mark.parametrize(
    ("written", "interval"),
    [
        ("60", "1m"), ("300", "5m"), ("3600", "1h"), ("5", "5m"), ("15", "15m"), ("240", "4h"), ("1440", "1d"),
        ("1min", "1m"), ("5 mins", "5m"), ("minute", "1m"), ("M15", "15m"), ("H4", "4h"), ("D1", "1d"), ("60m", "1h"),
        ("120m", "2h"), ("24h", "1d"), ("1hour", "1h"), ("7d", "1w"), ("1day", "1d"), ("1wk", "1w"), ("1mo", "1M"),
        ("M", "1M"), ("1", "1m"), ("1s ", "1s"),
        ("month", "1M"), ("60s", "1m"),
    ],
)  # fmt: skip
def test_an_interval_in_another_spelling_is_suggested(written: str, interval: str) -> None:
    with pytest.raises(RequestError, match=rf"unknown interval '{written}'; did you mean {interval}\? use one of 1s "):
        parse_interval(written)


@pytest.mark.parametrize("written", ["", "90m", "1y", "often", "-60", "0", "0m", "m" * 40, "9" * 40, "1.5h", "٦٠"])
def test_what_is_no_interval_in_any_spelling_is_none(written: str) -> None:
    with pytest.raises(RequestError, match="unknown interval") as complaint:
        parse_interval(written)
    assert "did you mean" not in complaint.value.message
    assert complaint.value.message.endswith(" ".join(INTERVALS))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2025-11-24T16:00:00Z", 1_764_000_000), ("2025-11-24t16:00:00z", 1_764_000_000),
        ("2025-11-24T17:00:00+01:00", 1_764_000_000), ("2025-11-24T17:00:00 01:00", 1_764_000_000),
        ("2025-11-24 16:00:00", 1_764_000_000), ("2025-11-24T16:00", 1_764_000_000),
        ("2025-11-24T16:00:00.250Z", 1_764_000_000), ("2025-11-24", 1_763_942_400), ("1764000000", 1_764_000_000),
    ],
)  # fmt: skip
def test_addresses_take_times_of_rfc_3339(written: str, seconds: int) -> None:
    assert TimeInAddress().of_text("start_time", written) == seconds


@pytest.mark.parametrize(
    "written",
    ["2025-13-24", "2025-02-30", "2025-11-24T25:00:00Z", "yesterday", "24.11.2025", "1960-01-01", "9999-12-31", "",
     "2025-11-24T16:00:00+99:00", "٢٠٢٥-11-24", "2025-11-24T16:00:00Zjunk"],
)  # fmt: skip
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(RequestError, match="times are Unix seconds"):
        TimeInAddress().of_text("start_time", written)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1_764_000_000_000, 1_764_000_000), (1_764_000_000_250, 1_764_000_000), (1_764_000_000_000_000, 1_764_000_000),
        ("1764000000000", 1_764_000_000), ("2025-11-24T16:00:00Z", 1_764_000_000), ("2025-11-24", 1_763_942_400),
        ("1764000000000000", 1_764_000_000), ("1764000000000000000", 1_764_000_000), (1_764_000_000.5, 1_764_000_000),
        ("1764000000.5", 1_764_000_000), ("1764000000", 1_764_000_000), (1_764_000_000_000.25, 1_764_000_000),
    ],
)  # fmt: skip
def test_milliseconds_and_dates_in_messages_are_refused_with_the_number_that_is_meant(
    value: int | str, number: int
) -> None:
    with pytest.raises(RequestError, match=f"not milliseconds: did you mean {number}\\?$"):
        Moment().of_json("since", value)


@pytest.mark.parametrize("value", [True, None, [], {}, -5, 1.5, 10**30, "soon", float("nan"), float("inf")])
def test_what_means_no_time_suggests_none(value: object) -> None:
    with pytest.raises(RequestError, match=r"not milliseconds$"):
        Moment().of_json("since", value)
    assert parse_date(str(value)) is None


@pytest.mark.parametrize("written", ["1969-12-31", "9999-12-31", "soon"])
def test_a_refused_time_of_an_address_is_named_as_it_was_written_and_with_all_forms(written: str) -> None:
    with pytest.raises(RequestError, match=rf"start_time '{written}' .* or written as 2025-11-24T16:00:00Z$"):
        TimeInAddress().of_text("start_time", written)


@pytest.mark.parametrize(
    ("written", "meant"), [("btc usdt", "BTCUSDT"), ("BTCUSDT@1m", "BTCUSDT"), (" eur/usd", "EUR/USD"), ("/", None)]
)
def test_what_cannot_be_a_symbol_suggests_the_one_in_it(written: str, meant: str | None) -> None:
    with pytest.raises(RequestError) as complaint:
        parse_symbol(written)
    assert complaint.value.message.endswith(f"; did you mean {meant}?" if meant else "^GSPC")


def test_a_number_for_an_interval_and_times_of_gaps_in_milliseconds_suggest_what_is_meant() -> None:
    with pytest.raises(RequestError, match='interval 3600 is not a text; did you mean "interval":"1h"'):
        IntervalText().of_json("interval", 3600)
    with pytest.raises(RequestError, match=r"gaps 1764000000000 is .* did you mean 1764000000\?$"):
        Spans(50).of_json("gaps", [[1_764_000_000_000, 1_764_000_060_000]])
