"""Which stream an answer is about, where the relay calls it otherwise than it was asked for."""

import pytest

from relay.client.followed_stream import FollowedStream
from relay.client.parsing import parse_stream
from relay.client.resume import StreamOptions
from relay.client.sent_requests import SentRequests
from relay.core.model import StreamKey


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("venue:BTC/USDT:USDT", "BTC/USDT:USDT"),
        ("BTC/USDT:USDT", "BTC/USDT:USDT"),
        ("ETH/USDT:USDT", "venue:eth/usdt:usdt"),
        ("venue:USDT", "USDT"),
        ("OTHER:X:EURUSD", "X:EURUSD"),
        ("^GSPC", "venue:^gspc"),
    ],
)
def test_an_answer_is_about_the_same_symbol_with_or_without_its_provider(told: str, asked: str) -> None:
    names = ("BTC/USDT:USDT", "venue:ETH/USDT:USDT", "USDT", "X:EURUSD", "venue:^GSPC", "A:USDT:USDT")
    streams = [FollowedStream(parse_stream(f"{name}@1m"), StreamOptions()) for name in names]
    sent = SentRequests()
    request = sent.send("subscribe", streams, {})
    found = sent.pop(request["id"], StreamKey(told, "1m"))
    assert found is not None
    assert found.asked == parse_stream(f"{asked}@1m")
