"""Which streams of a shard a relay carries upstream itself, as it follows from what it knows; pure."""

from enum import Enum


class Duty(Enum):
    """What of a shard a relay carries."""

    NONE = "none"
    OWN = "own"
    """What its own clients want: it serves alone."""
    ALL = "all"
    """What the clients of all relays want: it owns the shard, or did until another one is live."""


def duty(
    before: Duty, *, is_held: bool, is_alone: bool, is_live_elsewhere: bool, may_overlap: bool, can_serve: bool = True
) -> Duty:
    """Return what to carry now.

    A shard without a lease is let go of when another relay has it and is live, so that no price is missed between. Of a
    provider with a budget (`may_overlap` False) it is let go of at once: two would spend. `can_serve` is False for a
    relay that lacks what the provider needs.
    """
    if not can_serve:
        return Duty.NONE
    if is_held:
        return Duty.ALL
    if is_alone:
        return Duty.OWN
    if is_live_elsewhere or not may_overlap:
        return Duty.NONE
    return before
