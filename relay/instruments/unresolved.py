"""Why nobody serves a symbol, as errors for clients: it is unknown, or not known yet."""

from collections.abc import Callable, Sequence

from relay.core.errors import READMIT_S, RESTART_S, Code, RequestError
from relay.core.model import Instrument
from relay.instruments.lookups import Lookups
from relay.instruments.saved_list import SavedList
from relay.instruments.spellings import other_spellings, typing_errors
from relay.plugins.provider import Provider
from relay.protocol.fields import WHERE_SYMBOLS_ARE, shown

_MOST_SUGGESTED = 2


def refused(provider: Provider) -> RequestError:
    """Say that a provider refuses the relay."""
    return RequestError(
        Code.PROVIDER_UNAVAILABLE,
        provider.refusal or f"{provider.info.title} refuses the relay",
        retry_after=RESTART_S if provider.lacks_key else READMIT_S,
    )


def unknown(symbol: str, why: str, suggestion: str = "") -> RequestError:
    """Say that there is no such symbol."""
    return RequestError(Code.UNKNOWN_SYMBOL, f"unknown symbol {shown(symbol)}: {why}{suggestion}")


def undecided(symbol: str, holder: Provider | None, missing: Sequence[SavedList], *, has_others: bool) -> RequestError:
    """Say which lists are missing to decide about a symbol, and how to do without them.

    `holder` is a provider that lists it, None if there is none; `has_others`: another one may be named.
    """
    *others, last = (kept.provider.info.title for kept in missing)
    titles = f"{', '.join(others)} and {last}" if others else last
    lists, that, verb = ("list", "that", "is") if len(missing) == 1 else ("lists", "those", "are")
    reasons = "; ".join(dict.fromkeys(kept.problem or "it is still being loaded" for kept in missing))
    if holder is not None:
        text = (
            f"{shown(symbol)} may be a symbol of {titles}, but {that} symbol {lists} {verb} not loaded yet "
            f"({reasons}); to use {holder.info.title}, write {holder.name}:{symbol}"
        )
    else:
        text = f"the symbol {lists} of {titles} {verb} not loaded yet ({reasons})"
        if has_others:
            text += f", and no other list has {shown(symbol)}; to use another provider, write PROVIDER:SYMBOL"
    return RequestError(Code.PROVIDER_UNAVAILABLE, text, retry_after=min(kept.asks_in_s for kept in missing))


def unanswered(symbol: str, lookups: Lookups) -> RequestError | None:
    """Say that a provider that is asked for each symbol could not say whether it has this one; None if it could."""
    missing = lookups.missing(symbol)
    if missing is None or missing.is_known:
        return None
    if lookups.provider.refusal is not None:
        return refused(lookups.provider)
    title = lookups.provider.info.title
    text = f"{title} could not be asked whether it has {shown(symbol)}: {missing.text}"
    return RequestError(Code.PROVIDER_UNAVAILABLE, text, retry_after=lookups.asks_in_s(symbol))


def suggestion(
    symbol: str,
    among: Sequence[Provider],
    everybody: Sequence[Provider],
    instrument_of: Callable[[str, str], Instrument | None],
    name_of: Callable[[Provider, str], str],
) -> str:
    """Return the end of a sentence: what may be meant by a symbol that none of `among` has, or where to look."""
    found: dict[str, None] = {}
    # A letter is hardly wrong in what is a symbol in another spelling, or with another provider.
    for spellings, providers in ((other_spellings, among), (other_spellings, everybody), (typing_errors, among)):
        for spelling in spellings(symbol):
            for provider in providers:
                instrument = instrument_of(provider.name, spelling)
                if instrument is not None:
                    found[name_of(provider, instrument.symbol)] = None
            if len(found) >= _MOST_SUGGESTED:
                break
        if found:
            return f"; did you mean {' or '.join([*found][:_MOST_SUGGESTED])}?"
    # Of a provider that is asked for each symbol only those are listed that somebody asked for.
    return "" if any(provider.looks_up_instruments for provider in among) else f"; {WHERE_SYMBOLS_ARE}"
