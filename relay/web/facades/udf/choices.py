"""Which symbols a reader is offered where there is no search."""

from itertools import zip_longest

from relay.web.contract.queries import HITS
from relay.web.facades.facade import FacadeParts
from relay.web.http.instrument_lists import Selection

CHOICES = 20
"""So many of each provider; others can be typed."""
_TRADING = "trading"


async def likely_names(parts: FacadeParts, client: str) -> list[str]:
    """Return names of each provider in turn: what its venue always has, then the first of its list that are traded."""
    directory, by_provider = parts.directory, []
    for name in directory.listing:
        provider = parts.providers[name]
        listed = await parts.lists.search(None, Selection(None, name, limit=HITS), client)
        always = [symbol.upper() for symbol in provider.info.always_listed]
        symbols = dict.fromkeys([*always, *(one.instrument.symbol.upper() for one in listed)])
        traded = [symbol for symbol in symbols if directory.standing(name, symbol) == _TRADING]
        by_provider.append([directory.name_of(provider, symbol) for symbol in traded[:CHOICES]])
    return [name for turn in zip_longest(*by_provider) for name in turn if name is not None]
