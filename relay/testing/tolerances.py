"""How long and how much the conformance check allows."""

END_S = 5.0
"""How long a feed may take to end. The relay itself kills it sooner."""
SETTLE_S = 1.0
"""How long tasks, connections and requests may take to come to rest."""
BLOCKED_S = 1.0
SLOWEST = 25.0
"""How many times the CPU of `json.loads` and two tuples a message may cost from the socket to its updates."""
UNKNOWN_SYMBOL = "NOSUCHSYMBOL"
SHOWN = 5
