"""Makes a list of instruments small in memory and writes their steps in one way; for a thread where there are many."""

from collections.abc import Iterable
from typing import Any

from relay.core.model import Instrument
from relay.core.packed_extras import PackedExtras, pack

_SHARED = [
    Instrument._fields.index(name)
    for name in ("asset_class", "base", "quote", "intervals", "price_step", "volume_step", "volume_unit", "session")
]
_STEPS = [Instrument._fields.index(name) for name in ("price_step", "volume_step")]
_EXTRAS = Instrument._fields.index("extras")


def plain_step(step: str | None) -> str | None:
    """Return a decimal text without zeros at its end: `0.01` of `0.01000000`."""
    return step.rstrip("0").rstrip(".") if step is not None and "." in step else step


def compact(instruments: Iterable[Instrument]) -> list[Instrument]:
    """Return judged instruments as they are kept: equal texts are one object, extras are packed, steps are plain.

    Raises `ExtrasTooLarge`.
    """
    found = list(instruments)
    packed = iter(pack(one.extras for one in found if _is_loose(one)))
    known: dict[Any, Any] = {}
    kept = []
    for one in found:
        values: list[Any] = [*one]
        for place in _STEPS:
            values[place] = plain_step(values[place])
        for place in _SHARED:
            values[place] = known.setdefault(values[place], values[place])
        if _is_loose(one):
            values[_EXTRAS] = next(packed)
        kept.append(Instrument._make(values))
    return kept


def _is_loose(one: Instrument) -> bool:
    return one.extras is not None and not isinstance(one.extras, PackedExtras)
