"""How the trading hours of an instrument are written as one text, `24x7` or `0930-1600 America/New_York`; pure."""

import re
from functools import lru_cache
from zoneinfo import ZoneInfo

ALWAYS = "24x7"
_HOURS = r"([01][0-9]|2[0-3])[0-5][0-9]-(([01][0-9]|2[0-3])[0-5][0-9]|2400)"
_SESSION = re.compile(rf"{_HOURS}(,{_HOURS}){{0,9}}(:[1-7]{{1,7}})? (?P<zone>[A-Za-z0-9_+/-]{{1,64}})", re.ASCII)
_ADVICE = "such as '24x7', '1700-1700 America/New_York' or '0930-1600 America/New_York'"


@lru_cache(1024)
def fault_of_session(text: str) -> str | None:
    """Say what is wrong with the text of a session, or None.

    It is `24x7`, or the hours of a day and the time zone in which they are meant: `0930-1600 America/New_York`. A day
    may have several parts, `0900-1130,1230-1530 Asia/Tokyo`. Hours that do not end after they begin are overnight:
    they begin on the day before, so with `1700-1700 America/New_York` Monday begins on Sunday at 17:00. The days are
    Monday to Friday; others follow a colon, 1 for Sunday to 7 for Saturday: `1000-1800:1234567 Europe/Moscow`. That is
    how TradingView writes sessions.
    """
    if text == ALWAYS:
        return None
    found = _SESSION.fullmatch(text)
    if found is None:
        return f"{text!r:.80} is not a session {_ADVICE}"
    try:
        ZoneInfo(found["zone"])
    except (ValueError, OSError, KeyError):
        return f"{text!r:.80} names the time zone {found['zone']!r}, which there is not; write one {_ADVICE}"
    return None
