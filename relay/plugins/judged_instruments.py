"""The instruments that a plugin gives, judged: entries that make no sense are left out, a single one is refused."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from relay.core.compact_instruments import compact
from relay.core.errors import BadAnswer
from relay.core.model import Instrument, ProviderInfo
from relay.core.packed_extras import ExtrasTooLarge
from relay.core.threads import in_thread_if_many
from relay.plugins.validation import fault_of_instrument, text_of
from relay.telemetry.events import event

log = logging.getLogger(__name__)

_MOST_AT_A_TIME = 100
_FAULTS = (ExtrasTooLarge, TypeError, ValueError)


async def judged_list(answer: Sequence[Any], info: ProviderInfo, conceal: Callable[[str], str]) -> Sequence[Instrument]:
    """Return the sound entries of a list, as they are kept. Raises `BadAnswer` if there are entries, and none is."""
    faults: list[str | None] = []
    known: dict[str, Instrument] = {}
    for instrument in answer:
        fault = fault_of_instrument(instrument, info)
        if fault is None:
            symbol = instrument.symbol
            first_of_it = known.setdefault(symbol if symbol.isupper() else symbol.upper(), instrument)
            # The same row twice does no harm: pages of a venue overlap.
            if first_of_it is not instrument and first_of_it != instrument:
                fault = f"{symbol} is listed twice with other values, first as {first_of_it.symbol}; case is ignored"
        faults.append(fault)
        if not len(faults) % _MOST_AT_A_TIME:
            await asyncio.sleep(0)
    found = answer
    first = next((conceal(fault) for fault in faults if fault is not None), None)
    if first is not None:
        found = [instrument for instrument, fault in zip(answer, faults, strict=True) if fault is None]
        if not found:
            raise BadAnswer(f"provider {info.name}: relay_instruments: {first}")
        log.warning(
            "provider %s lists %d invalid instruments, the first: %s",
            info.name,
            len(faults) - len(found),
            first,
            extra=event("instruments_refused", provider=info.name, count=len(faults) - len(found)),
        )
    try:
        return await in_thread_if_many(len(found), compact, found)
    except _FAULTS as error:
        raise BadAnswer(f"provider {info.name}: relay_instruments: {conceal(text_of(error))}") from None


def judged_answer(found: Any, symbol: str, info: ProviderInfo, conceal: Callable[[str], str]) -> Instrument:
    """Return what a plugin said that a symbol in upper case denotes, as it is kept. Raises `BadAnswer`."""
    fault = fault_of_instrument(found, info)
    if fault is None and found.symbol.upper() != symbol:
        fault = f"it is of {found.symbol}, not of {symbol}; case is ignored"
    try:
        if fault is None:
            return compact([found])[0]
    except _FAULTS as error:
        fault = text_of(error)
    detail = f"provider {info.name}: relay_instrument: {conceal(fault or '')}"
    raise BadAnswer(f"{info.title} described {symbol} wrongly", detail=detail)
