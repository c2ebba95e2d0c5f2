"""Read messages of a live session with the models that were generated from the AsyncAPI document; print JSON."""

import json
import sys
from collections import Counter
from pathlib import Path

FOLDER = Path(sys.argv[1])
sys.path.insert(0, str(FOLDER))

import models  # noqa: E402  it was made a moment ago

KINDS = {
    "price_update": models.PriceUpdateMessage,
    "snapshot": models.SnapshotMessage,
    "subscription": models.Subscription,
    "subscriptions": models.Subscriptions,
    "error": models.ErrorMessage,
    "pong": models.Pong,
    "gap": models.GapMessage,
}
seen = Counter()
closes = []
for line in (FOLDER / "session.ndjson").read_text().splitlines():
    message = json.loads(line)
    kind = KINDS.get(message["type"]) or (models.StreamStatus if "symbol" in message else models.Greeting)
    read = kind.model_validate(message, strict=False)
    seen[kind.__name__] += 1
    if kind is models.PriceUpdateMessage:
        closes.append(read.candle.close)

asked = models.Subscribe(action="subscribe", symbol="BTCUSDT", interval="1m", bars=5)
refused = []
for wrong in ({"bars": 5001}, {"bars": -1}, {"throttle_ms": 60_001}, {"interval": "7m"}, {"symbol": "A B"}):
    try:
        models.Subscribe.model_validate({"action": "subscribe", "symbol": "BTCUSDT", "interval": "1m"} | wrong)
    except ValueError:
        refused.append(next(iter(wrong)))
print(
    json.dumps({"seen": seen, "closes": closes, "asked": asked.model_dump_json(exclude_none=True), "refused": refused})
)
