"""What another relay says, as updates, refusals and states of a leaf's streams."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from providers.relay.candles import believed
from providers.relay.codec import RelayCodec, Resumes
from relay import (
    Accepted,
    Candle,
    Hosts,
    PastChange,
    PriceUpdate,
    ProviderUnavailable,
    Rejected,
    Secret,
    StreamKey,
    Watchlist,
    is_unreadable,
)

BTC, ETH = StreamKey("BTCUSDT", "1m"), StreamKey("ETHUSDT", "1m")
NAMES = {"symbol": "BTCUSDT", "interval": "1m"}
VALUES = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0}


class Reports:
    """A watchlist, and what was reported to it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.due: list[asyncio.TimerHandle] = []
        self.watchlist = Watchlist(
            (BTC, ETH),
            on_accept=lambda key: self.told.append(("accept", key)),
            on_lose=lambda key, error, in_s: self.told.append(("lose", key, str(error))),
            on_pause=lambda key, status, text: self.told.append((status, key, text)),
        )

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Keep a call until `go_on`."""
        self.due.append(asyncio.TimerHandle(delay_s, call, (), asyncio.get_running_loop()))
        return self.due[-1]

    def go_on(self) -> None:
        """Make the calls that are due, but for those that were cancelled."""
        for handle in self.due:
            if not handle.cancelled():
                handle._run()
        self.due.clear()


@pytest.fixture
def reports() -> Reports:
    return Reports()


def codec_of(reports: Reports, resumes: Resumes | None = None) -> RelayCodec:
    at = "https://root.example"
    return RelayCodec(Hosts([at]), Secret("t0ken"), {at: resumes or Resumes()}, reports.watchlist, reports.call_later)


def said(codec: RelayCodec, **wire: Any) -> list[Any]:
    return list(codec.decode(orjson.dumps({**NAMES, **wire})))


def asked(codec: RelayCodec, *keys: StreamKey) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in codec.subscribe(keys)]


def candle(time: int, **more: Any) -> dict[str, Any]:
    return {"time": time, **VALUES, **more}


def test_connection_has_the_token_in_its_headers(reports: Reports) -> None:
    codec = codec_of(reports)
    assert codec.url == "wss://root.example/api/v1/market-data/ws"
    assert codec.headers == {"Authorization": "Bearer t0ken"}


def test_names_go_in_frames_that_a_relay_takes(reports: Reports) -> None:
    keys = [StreamKey("\N{CJK UNIFIED IDEOGRAPH-5E01}" * 40 + str(number), "1m") for number in range(100)]
    texts = list(codec_of(reports).subscribe(keys))
    assert max(len(text.encode()) for text in texts) <= 4096
    assert [name for text in texts for name in orjson.loads(text)["streams"]] == 2 * [str(key) for key in keys]


def test_update_is_passed_on_with_what_it_carries(reports: Reports) -> None:
    codec = codec_of(reports)
    more = {"quote_volume": 4.5, "trades": 7, "taker_volume": None, "taker_quote_volume": None}
    (live,) = said(codec, type="price_update", candle=candle(60, **more), is_closed=False, ts_event=61_000)
    assert live == PriceUpdate(BTC, Candle(60, 1.0, 2.0, 0.5, 1.5, 3.0), False, 61_000)
    assert live.candle.extras[:4] == (4.5, 7, None, None)
    # The stamp of what is told late is no time of now.
    (late,) = said(codec, type="price_update", candle=candle(0), is_closed=True, ts_event=59_999, backfilled=True)
    assert (late.is_closed, late.ts_event_ms, late.is_backfilled) == (True, None, False)


def test_next_connection_asks_what_was_revised_meanwhile_and_history_has_the_rest(reports: Reports) -> None:
    resumes = Resumes()
    codec = codec_of(reports, resumes)
    first = {"action": "subscribe", "streams": ["BTCUSDT@1m"], "extended": True}
    # The second request brings no candle, but from then on the revisions of all.
    assert asked(codec, BTC) == [{**first, "id": 1}, {**first, "id": 2, "since": 0, "bars": 0}]
    assert said(codec, type="subscription", action="subscribe", id=1, revision=5) == [Accepted((BTC,))]
    said(codec, type="price_update", candle=candle(60), is_closed=True, ts_event=None)
    said(codec, type="price_update", candle=candle(0), is_closed=True, ts_event=None, revised=True, revision=6)
    codec = codec_of(reports, resumes)
    (resumed,) = asked(codec, BTC)
    assert (resumed["since"], resumed["revision"], resumed["bars"]) == (60, 6, 1)
    assert "store" not in resumed
    snapshot = {"candles": [candle(120), candle(180)], "last_is_closed": False, "revised": [candle(60)]}
    times = [(one.candle.time, one.is_closed) for one in said(codec, type="snapshot", **snapshot, revision=9)]
    assert times == [(180, False), (60, True)]
    assert said(codec, type="snapshot", candles=[], last_is_closed=True, revisions_known=False) == [
        PastChange(BTC, before=61, one_interval=True)
    ]
    list(codec.unsubscribe([BTC]))
    assert "since" not in asked(codec, BTC)[0]


def test_refusal_is_of_the_stream_or_of_all_that_the_request_named(reports: Reports) -> None:
    codec = codec_of(reports)
    asked(codec, BTC, ETH)
    (refused,) = said(codec, type="error", code="unknown_symbol", message="no such symbol", id=1)
    assert refused == Rejected((BTC,), "the other relay refused the stream: no such symbol")
    wire = orjson.dumps({"type": "error", "code": "rate_limited", "message": "too many requests", "id": 1})
    assert [one.keys for one in codec.decode(wire)] == [(ETH,)]  # type: ignore[union-attr]


def test_states_of_the_other_relay_are_told_and_told_again_after_prices(reports: Reports) -> None:
    codec = codec_of(reports)
    said(codec, type="status", status="market_closed", message="it opens at noon")
    said(codec, type="status", status="stale", message="")
    codec.report_again(BTC)
    said(codec, type="status", status="connected", message="")
    codec.report_again(BTC)
    stale = ("lose", BTC, "at the other relay the stream is stale")
    assert reports.told == [("market_closed", BTC, "it opens at noon"), stale, stale, ("accept", BTC)]


@pytest.mark.parametrize("is_long", [False, True])
async def test_stream_that_the_other_relay_has_to_open_first_is_lost_only_if_that_takes_long(
    reports: Reports, is_long: bool
) -> None:
    codec = codec_of(reports)
    said(codec, type="status", status="connecting", message="connecting to the provider")
    codec.report_again(BTC)
    if is_long:
        reports.go_on()
    said(codec, type="status", status="connected", message="")
    codec.close()
    reports.go_on()
    lost = ("lose", BTC, "at the other relay the stream is connecting: connecting to the provider")
    assert reports.told == ([lost, ("accept", BTC)] if is_long else [])


def test_change_of_the_past_is_the_symbols(reports: Reports) -> None:
    assert said(codec_of(reports), type="outdated", **{"from": 60, "before": 600}) == [PastChange(BTC, 600, 60)]


# -- history ---------------------------------------------------------------------------------------


def answer(*times: int, **more: Any) -> dict[str, Any]:
    return {"interval": "1m", "candles": [candle(time) for time in times], "last_is_closed": True, **more}


def test_complete_history_is_believed() -> None:
    assert [one.time for one in believed(answer(0, 180), 0, 240, 1000.0, None)] == [0, 180]


def test_what_the_other_relay_misses_is_unreadable_here() -> None:
    found = believed(answer(60, 180, complete=False), 0, 300, 10_000.0, None)
    assert [(one.time, is_unreadable(one)) for one in found] == [
        (0, True), (60, False), (120, True), (180, False), (240, True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "now"),
    [(answer(0, 120, complete=False), 200.0), (answer(0, 60, last_is_closed=False), 131.0)],
    ids=["still fetching", "not closed yet"],
)
def test_what_is_not_settled_there_is_asked_for_again(wire: dict[str, Any], now: float) -> None:
    with pytest.raises(ProviderUnavailable):
        believed(wire, 0, 180, now, None)


def test_open_candle_whose_end_was_a_moment_ago_is_open() -> None:
    assert [one.time for one in believed(answer(0, 60, last_is_closed=False), 0, 180, 125.0, None)] == [0, 60]


def test_a_revision_is_sent_with_the_store_that_it_is_of(reports: Reports) -> None:
    resumes = Resumes()
    codec = codec_of(reports, resumes)
    list(codec.decode(b'{"type":"status","status":"connected","epoch":"e","store":"s1","server_time":0}'))
    said(codec, type="price_update", candle=candle(60), is_closed=True, ts_event=None, revised=True, revision=6)
    # The next connection to the same address may come to another relay.
    (resumed,) = asked(codec_of(reports, resumes), BTC)
    assert (resumed["revision"], resumed["store"]) == (6, "s1")
