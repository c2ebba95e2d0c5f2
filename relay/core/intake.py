"""Which connections to providers are read at once, and when they need not be: what they bring would wait anyway."""

from typing import Protocol


class Tap(Protocol):
    """One connection that can be told to wait with what comes."""

    def hold_back(self, is_held: bool, /) -> None: ...
    def unread_bytes(self) -> int: ...


class Intake:
    """The connections over which updates come, held back and let go together.

    Each read wakes the process, and costs more than what one update brings. While nothing can be written, updates of
    several milliseconds may as well be read at once. Whoever calls `hold` calls `release` soon, whatever happens.
    """

    def __init__(self) -> None:
        self._taps: dict[Tap, None] = {}
        self._is_held = False

    def add(self, tap: Tap) -> None:
        """Hold this one with the others from now on."""
        self._taps[tap] = None
        if self._is_held:
            tap.hold_back(True)

    def remove(self, tap: Tap) -> None:
        """Leave a connection alone: it is gone. Harmless when it was never added."""
        self._taps.pop(tap, None)

    def hold(self) -> None:
        """Read nothing for now. Harmless when that is so."""
        if not self._is_held:
            self._is_held = True
            for tap in self._taps:
                tap.hold_back(True)

    def unread_bytes(self) -> int:
        """Return how much came that is not read yet."""
        return sum([tap.unread_bytes() for tap in self._taps])

    def release(self) -> bool:
        """Read as always; return whether something came that was not read yet."""
        if not self._is_held:
            return False
        self._is_held = False
        for tap in self._taps:
            tap.hold_back(False)
        return self.unread_bytes() > 0
