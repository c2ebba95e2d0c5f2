"""The exchange's time in the sandbox: a clock that may be fast or shifted; nothing about prices."""

import time


class SandboxClock:
    """Tell the exchange's time: `speed` seconds of it pass per real second, `offset_s` ahead of the system clock.

    It runs on the monotonic clock from the moment it is made, so a system clock that jumps changes nothing.
    """

    def __init__(self, speed: float = 1.0, offset_s: float = 0.0) -> None:
        if speed <= 0:
            raise ValueError(f"speed is {speed}: the exchange's time must go forward")
        self.speed = speed
        self._origin = time.time() + offset_s
        self._started = time.monotonic()

    def now(self) -> float:
        """Tell the exchange's time in Unix seconds."""
        return self._origin + (time.monotonic() - self._started) * self.speed

    def now_ms(self) -> int:
        """Tell the exchange's time in whole Unix milliseconds."""
        return int(self.now() * 1000)

    def real_seconds_until(self, moment: float) -> float:
        """Tell how long a caller has to wait for a moment of the exchange's time, never less than 0."""
        return max(0.0, (moment - self.now()) / self.speed)
