"""What the client reads from answers of the REST routes."""

import sys
from typing import Any

import pytest

from relay.client import Candle, ClientError, ListedInstrument, MissingPackage
from relay.client.answers import read_history, read_instruments, read_status, read_symbols
from relay.client.decoding import Unreadable

CANDLE = {"time": 60, "open": 1, "high": 2.5, "low": 0.5, "close": 2, "volume": 7}
HISTORY = {"symbol": "BTCUSDT", "interval": "1m", "candles": [CANDLE], "last_is_closed": True}
INSTRUMENT = {"symbol": "X", "provider": "p", "asset_class": "crypto", "base": "A", "quote": "B", "intervals": ["1m"]}


def test_history_holds_candles() -> None:
    history = read_history(HISTORY)
    assert history[:2] == ("BTCUSDT", "1m")
    assert history.candles == (Candle(60, 1.0, 2.5, 0.5, 2.0, 7.0),)
    assert history.last_is_closed
    assert history.wire == HISTORY


def test_a_data_frame_needs_pandas_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match=r"to_pandas needs pandas, .* pip install pandas") as raised:
        read_history(HISTORY).to_pandas()
    assert isinstance(raised.value, ClientError | ImportError)
    assert raised.value.package == "pandas"


def test_history_says_who_it_comes_from_where_the_relay_does() -> None:
    assert read_history(HISTORY).provider == ""
    assert read_history({**HISTORY, "provider": "binance"}).provider == "binance"


def test_an_instrument_trades_unless_it_is_said_to_be_paused() -> None:
    assert read_instruments([INSTRUMENT])[0].status == "trading"
    assert read_instruments([{**INSTRUMENT, "status": "paused"}])[0].status == "paused"


def test_instrument_without_attribution_has_an_empty_one() -> None:
    assert read_instruments([INSTRUMENT]) == [ListedInstrument("X", "p", "crypto", "A", "B", ("1m",), "", id="p:X")]
    assert read_instruments([{**INSTRUMENT, "attribution": "by p"}])[0].attribution == "by p"


def test_an_instrument_says_what_the_relay_knows() -> None:
    said = {
        "id": "p:X", "name": "Ex", "derived_intervals": ["2h"], "price_step": "0.01", "volume_step": "1",
        "volume_unit": "lots", "session": "24x7", "listed_at": 1, "expires_at": 2, "later": 3,
    }  # fmt: skip
    (one,) = read_instruments([{**INSTRUMENT, **said}])
    assert one[8:] == ("p:X", "Ex", ("2h",), "0.01", "1", "lots", "24x7", 1, 2)
    # A relay of before does not say the id.
    assert read_instruments([{**INSTRUMENT, "symbol": "p:X"}])[0].id == "p:X"


@pytest.mark.parametrize("answer", [None, "text", 1, [], {}, {**HISTORY, "candles": [{}]}, {**HISTORY, "candles": 3}])
def test_history_of_another_server_is_told_apart(answer: Any) -> None:
    with pytest.raises(Unreadable):
        read_history(answer)


@pytest.mark.parametrize("answer", [None, "text", {}, [1], ["BTCUSDT", None]])
def test_symbols_of_another_server_are_told_apart(answer: Any) -> None:
    with pytest.raises(Unreadable):
        read_symbols(answer)


@pytest.mark.parametrize("answer", [None, 1, [1], [{}], ["BTCUSDT"], [{**INSTRUMENT, "intervals": None}]])
def test_instruments_of_another_server_are_told_apart(answer: Any) -> None:
    with pytest.raises(Unreadable):
        read_instruments(answer)


@pytest.mark.parametrize("answer", [None, "text", [], 1])
def test_status_of_another_server_is_told_apart(answer: Any) -> None:
    with pytest.raises(Unreadable):
        read_status(answer)
