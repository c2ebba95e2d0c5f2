"""Whether nothing but updates that are left out comes of one stream, and when history is asked because of it; pure."""

LEAST_DOUBT_S = 5.0
MOST_DOUBT_S = 300.0


class StrayUpdates:
    """The updates of one stream that are left out, for their times are wrong; `received` counts those that are not."""

    __slots__ = ("_after", "_doubt_at", "_doubt_pause_s", "_taken", "_why")

    def __init__(self) -> None:
        # Why updates are left out; how many had been taken then, and when that was looked at last.
        self._why = ""
        self._after = self._taken = 0
        self._doubt_at = self._doubt_pause_s = 0.0

    def note(self, why: str, received: int) -> None:
        """Take note of an update that was left out."""
        self._why, self._after = why, received

    def end(self) -> None:
        """Note that an update was taken."""
        self._why = ""

    def look(self, received: int, told: str) -> str:
        """Return why all is left out that came since the last look, empty if it is not; `told` is what was said."""
        if received != self._after:
            self._why, self._doubt_pause_s = "", 0.0
        stray = self._why if told or received == self._taken else ""
        self._taken = received
        return stray

    def may_doubt(self, now: float) -> bool:
        """Say whether history is to be asked because updates are left out; then not for a while, ever longer."""
        if now < self._doubt_at:
            return False
        self._doubt_pause_s = min(max(LEAST_DOUBT_S, 2 * self._doubt_pause_s), MOST_DOUBT_S)
        self._doubt_at = now + self._doubt_pause_s
        return True
