"""Ask a relay through the client that openapi-python-client generated from its contract; print JSON."""

import json
import sys

FOLDER, URL, TOKEN = sys.argv[1:4]
sys.path.insert(0, FOLDER)

from generated import AuthenticatedClient  # noqa: E402  it was made a moment ago
from generated.api.market_data import history, instruments, symbols  # noqa: E402
from generated.api.operation import healthz, status  # noqa: E402
from generated.models import HistoryObject, Problem, Status  # noqa: E402

with AuthenticatedClient(base_url=URL, token=TOKEN) as client:
    past = history.sync(client=client, symbol="BTCUSDT", interval="1m", start_time=1_764_000_000, limit=3)
    assert isinstance(past, HistoryObject), past
    refused = history.sync(client=client, symbol="NOPE", interval="1m")
    assert isinstance(refused, Problem), refused
    known = status.sync(client=client)
    assert isinstance(known, Status), known
    listed = instruments.sync(client=client, asset_class="forex")
    said = {
        "candles": [[one.time, one.open_, one.high, one.low, one.close, one.volume] for one in past.candles],
        "types": sorted({type(one).__name__ for one in past.candles}),
        "last_is_closed": past.last_is_closed,
        "refused": [refused.status, refused.code],
        "providers": [one.name for one in known.providers],
        "forex": [one.symbol for one in listed],
        "symbols": symbols.sync(client=client, asset_class="crypto"),
        "health": healthz.sync(client=client).status,
    }
with AuthenticatedClient(base_url=URL, token="wrong") as stranger:
    said["stranger"] = symbols.sync(client=stranger).code
print(json.dumps(said))
