"""Which of several relays is asked next, and when; no I/O and no clock: the time is passed in, in monotonic seconds."""

from relay.client.backoff import Backoff


class Rotation:
    """Goes round a number of relays: to the next one when one fails, with a pause after each round without success.

    The pauses grow with the rounds, not with the failures of one relay, and a single relay is a round. A relay that
    named a time is not asked before it. `current` is the relay that is used, or asked next at `next_at`.
    """

    def __init__(self, count: int, backoff: Backoff, first: int = 0) -> None:
        self.current = first
        self.next_at = 0.0
        self._backoff = backoff
        self._not_before = [0.0] * count
        # Since the last pause.
        self._failed: set[int] = set()
        self._rounds = 0

    @property
    def is_within_round(self) -> bool:
        """Whether there are relays that can be asked before the next pause."""
        return bool(self._failed)

    def restart(self) -> None:
        """Take it that the current relay is well: the next failure is the first again."""
        self._failed.clear()
        self._rounds = 0

    def go_on(self, now: float, *, least_s: float = 0.0, was_open: bool = False) -> float:
        """Leave the current relay, which failed; return in how many seconds the next one is to be asked.

        This one wants to be asked in `least_s` at the soonest. If it `was_open`, it may have left many clients at once:
        they spread over the shortest pause.
        """
        failed, count = self.current, len(self._not_before)
        self._not_before[failed] = now + least_s
        self._failed.add(failed)
        # Where equal, the next one in the order comes first.
        order = [(failed + step) % count for step in range(1, count + 1)]
        left = [number for number in order if number not in self._failed and self._not_before[number] <= now]
        if left:
            self.current = left[0]
            wait_s = self._backoff.jitter.uniform(0.0, self._backoff.least_s) if was_open else 0.0
        else:
            self._failed.clear()
            pause_s = self._round_pause_s()
            asked_s = {number: self._not_before[number] - now for number in order} | {failed: least_s}
            self.current = min(order, key=lambda number: max(pause_s, asked_s[number]))
            wait_s = max(pause_s, asked_s[self.current])
        self.next_at = now + wait_s
        return wait_s

    def stay(self, now: float, *, least_s: float = 0.0) -> float:
        """Pause, and then ask the current relay again: it was not its fault. Return the pause in seconds."""
        wait_s = max(self._round_pause_s(), least_s)
        self.next_at = now + wait_s
        return wait_s

    def _round_pause_s(self) -> float:
        self._rounds += 1
        return self._backoff.wait_s(self._rounds - 1)
