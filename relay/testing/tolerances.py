"""How long and how much the conformance check allows."""

from typing import NamedTuple

from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming


class Tolerances(NamedTuple):
    """What a provider is given before it is blamed; `slowest` and `volume` are factors, `price` a part of the price.

    `end_s` is how long a feed may take to end, though the relay itself kills it sooner, after what `plugin` says;
    `settle_s` how long tasks, connections and requests may take to come to rest, `blocked_s` how long the event loop
    may be blocked; `clock_s` how far the provider's clock may be behind. From the socket to its updates a message may
    cost `slowest` times the CPU of `json.loads` and two tuples. Closed candles of a stream may differ from history by
    `same`, a part of the value: sums of floats differ in the last digits. A longer candle may differ from the shorter
    ones in it by `price` and `volume`, as some venues count them apart; and so may an open candle, built from ticks.
    """

    end_s: float = 5.0
    settle_s: float = 1.0
    blocked_s: float = 1.0
    slowest: float = 25.0
    plugin: PluginTiming = PLUGIN_TIMING
    clock_s: float = 2.0
    same: float = 1e-6
    price: float = 0.002
    volume: float = 3.0


TOLERANCES = Tolerances()
UNKNOWN_SYMBOL = "NOSUCHSYMBOL"
SHOWN = 5
