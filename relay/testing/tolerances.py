"""How long and how much the conformance check allows."""

from typing import NamedTuple

from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming


class Tolerances(NamedTuple):
    """What a provider is given before it is blamed; `slowest` is a factor, the others are seconds.

    `end_s` is how long a feed may take to end, though the relay itself kills it sooner, after what `plugin` says;
    `settle_s` how long tasks, connections and requests may take to come to rest, `blocked_s` how long the event loop
    may be blocked. From the socket to its updates a message may cost `slowest` times the CPU of `json.loads` and two
    tuples.
    """

    end_s: float = 5.0
    settle_s: float = 1.0
    blocked_s: float = 1.0
    slowest: float = 25.0
    plugin: PluginTiming = PLUGIN_TIMING


TOLERANCES = Tolerances()
UNKNOWN_SYMBOL = "NOSUCHSYMBOL"
SHOWN = 5
