"""The facades that there are, by name."""

from collections.abc import Iterable, Mapping

from relay.web.facades.binance.facade import BinanceFacade
from relay.web.facades.facade import Facade, Facades
from relay.web.facades.udf.facade import UdfFacade

FACADE_TYPES: Mapping[str, type[Facade]] = {kind.name: kind for kind in (BinanceFacade, UdfFacade)}


def chosen_facades(names: Iterable[str]) -> Facades:
    """Return the facades of these names."""
    return Facades(FACADE_TYPES[name]() for name in names)
