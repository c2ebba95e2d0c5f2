"""The credits of a Twelve Data plan, and an error as the server reports it."""

from providers.sandbox.clock import SandboxClock
from providers.sandbox.listings import DAY_MS

PRICING = "https://twelvedata.com/pricing"


class Problem(Exception):
    """An error as the server reports it."""

    def __init__(self, code: int, message: str, meta: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.meta = meta

    @property
    def body(self) -> dict[str, object]:
        """Give the error's JSON."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "status": "error"}
        if self.meta is not None:
            body["meta"] = self.meta
        return body


class Credits:
    """Count credits by the exchange's clock minute and UTC day; refused calls count as well."""

    def __init__(self, clock: SandboxClock, per_minute: int, per_day: int) -> None:
        self._clock = clock
        self.per_minute = per_minute
        self.per_day = per_day
        self.used_this_minute = 0
        self.used_today = 0
        self._minute = self._day = 0

    def roll(self) -> None:
        """Begin a new minute or day when it is time."""
        now = self._clock.now_ms()
        if now // 60_000 != self._minute:
            self._minute, self.used_this_minute = now // 60_000, 0
        if now // DAY_MS != self._day:
            self._day, self.used_today = now // DAY_MS, 0

    def spend(self, cost: int) -> None:
        """Take credits for a call; raises `Problem` 429 when they do not suffice for the whole of it."""
        self.roll()
        self.used_this_minute += cost
        self.used_today += cost
        if self.used_today > self.per_day:
            raise Problem(
                429,
                f"You have run out of API credits for the day. {self.used_today} API credits were used, with the "
                f"current limit being {self.per_day}. Wait for the next day or consider switching to a higher tier "
                f"plan at {PRICING}",
            )
        if self.used_this_minute > self.per_minute:
            raise Problem(
                429,
                f"You have run out of API credits for the current minute. {self.used_this_minute} API credits were "
                f"used, with the current limit being {self.per_minute}. Wait for the next minute or consider "
                f"switching to a higher tier plan at {PRICING}",
            )
