"""What SQLite left in the files of an open database, and whether somebody else wrote over it; no SQL.

SQLite trusts its log (`-wal`) and the index of it (`-shm`) for as long as it has them open. What stands in them is read
here beside it: the format of the log is documented, that of the index is that of SQLite 3.7 and newer, which it names.
"""

import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

LOG, INDEX = "-wal", "-shm"

_VERSION = 3007000
_HEADER_BYTES = 48
_INDEX_BYTES = 2 * _HEADER_BYTES + 40
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_FIRST_PAGE_BYTES = 100
_TRIES = 3

Stamp = tuple[int, int]
"""The size of a file, and when it was written last (ns)."""


class LogState(NamedTuple):
    """What the index says: which log this is (`salt`), its committed frames and the `checksum` over all of them.

    `copied` of them are in the database, and a checkpoint was to copy up to `attempted`.
    """

    salt: bytes
    frames: int
    checksum: bytes
    page_bytes: int
    copied: int
    attempted: int


class Footprint(NamedTuple):
    """How the files are at one moment. `mark` is what a few pages hold that hardly two states have in common.

    `head` is that of the index, which changes with each commit. `log` is None where a checkpoint began or ended in that
    moment, and while its index is being written, or says nothing: then SQLite reads all of the log itself.
    """

    stamp: Stamp
    mark: bytes
    log_stamp: Stamp
    head: bytes
    log: LogState | None

    @property
    def commits(self) -> bytes:
        """What the index counts up with each commit, by whichever program; the log may begin anew without one."""
        return self.head[8:12]


class Harm(NamedTuple):
    """What somebody did to the files in their place, and whether what is in the log still belongs to the database."""

    reason: str
    keeps_log: bool


class OpenFiles:
    """The three files that SQLite has open.

    To close one of them ends the locks of this process on it, so `close` only once SQLite has closed them.
    """

    def __init__(self, path: str, pages: Sequence[int]) -> None:
        self._pages = pages
        self._numbers: list[int] = []
        try:
            self._database = self._opened(path, os.O_RDONLY)
            self._log = self._opened(path + LOG, os.O_RDWR)
            self._index = self._opened(path + INDEX, os.O_RDWR)
        except OSError:
            self.close()
            raise
        self._index_bytes = os.fstat(self._index).st_size
        self._mended: Harm | None = None

    def _opened(self, path: str, flags: int) -> int:
        number = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._numbers.append(number)
        return number

    def close(self) -> None:
        """Close the files."""
        while self._numbers:
            os.close(self._numbers.pop())

    def guard_index(self) -> None:
        """Give the index its length back where somebody cut it off, and have SQLite make it anew from the log.

        SQLite has it mapped: the process would die (SIGBUS) of reading what is no more there. Takes a microsecond.
        """
        size = os.fstat(self._index).st_size
        if size >= self._index_bytes:
            self._index_bytes = size
            return
        os.ftruncate(self._index, self._index_bytes)
        self._renew_index("its index was cut off")

    def footprint(self, before: Footprint | None = None) -> Footprint:
        """Return how the files are now; the mark is that of `before` if the database was not written since.

        A checkpoint of another program may begin or end at any moment. So the log is looked at before the database is
        and after it: where a checkpoint went on meanwhile, nobody can say to which state of the log the mark belongs.
        """
        for _ in range(_TRIES):
            _, begun = self._log_state()
            stamp = _stamp(self._database)
            # Two writes may have the same time.
            is_same = before is not None and before.stamp == stamp and _is_idle(before.log, begun)
            mark = before.mark if before is not None and is_same else self._mark()
            log_stamp = _stamp(self._log)
            head, log = self._log_state()
            if _copies(begun) == _copies(log):
                return Footprint(stamp, mark, log_stamp, head, log)
        return Footprint(stamp, mark, log_stamp, head, None)

    def is_untouched(self, since: Footprint) -> bool:
        """Say that nobody has written to the files since; waits for no disk. What else happened only `look` can say."""
        if _stamp(self._database) != since.stamp or _stamp(self._log) != since.log_stamp:
            return False
        return os.pread(self._index, len(since.head), 0) == since.head

    def look(self, before: Footprint) -> Footprint | Harm:
        """Return how the files are now, or what was done to them since `before` if that was not done by SQLite.

        Harm to what is returned is found by the next look. What was done to the names is not seen here. Of programs
        that use SQLite each change shows in the index, and each that is committed in log and index alike.
        """
        self.guard_index()
        if self._mended is not None:
            return self._mended
        now = self.footprint(before)
        if not now.stamp[0]:
            return Harm("the file was emptied", keeps_log=False)
        if now.mark != before.mark and _is_idle(before.log, now.log):
            return Harm("the file was written over", keeps_log=False)
        for _ in range(_TRIES):
            _, state = self._log_state()
            if state is None or self._holds(state):
                break
            if state == self._log_state()[1]:
                # Nobody was in the middle of writing.
                return self._harm_of_log(before.log)
        else:
            return now
        known = before.log
        if state is not None and known is not None and state.salt == known.salt and state.frames < known.frames:
            return self._harm_of_log(known)
        return now

    def _harm_of_log(self, known: LogState | None) -> Harm:
        """Say which of the two is wrong; the index is made anew from a log that is right."""
        if known is not None and known.frames and self._holds(known):
            return self._renew_index("its index was written over")
        return Harm("its write-ahead log was written over", keeps_log=False)

    def drop_log(self) -> None:
        """Have SQLite find nothing in the log: what stands there is not of the database."""
        os.ftruncate(self._log, 0)
        os.pwrite(self._index, bytes(2 * _HEADER_BYTES), 0)

    def _renew_index(self, reason: str) -> Harm:
        """Have SQLite make the index anew from the log before it uses it again."""
        os.pwrite(self._index, bytes(2 * _HEADER_BYTES), 0)
        self._mended = Harm(reason, keeps_log=True)
        return self._mended

    def _mark(self) -> bytes:
        head = os.pread(self._database, _FIRST_PAGE_BYTES, 0)
        size = int.from_bytes(head[16:18], "big")
        size = 65536 if size == 1 else size
        return b"".join(os.pread(self._database, size, (page - 1) * size) for page in self._pages)

    def _log_state(self) -> tuple[bytes, LogState | None]:
        """Return the head of the index and what it says, None while it says nothing."""
        for _ in range(_TRIES):
            head = os.pread(self._index, _INDEX_BYTES, 0)
            first, second = head[:_HEADER_BYTES], head[_HEADER_BYTES : 2 * _HEADER_BYTES]
            if len(head) == _INDEX_BYTES and first == second and _checksum(first[:40]) == first[40:]:
                break
        else:
            return head, None
        version, _, _, is_set, _, page_bytes, frames, _ = struct.unpack_from("=IIIBBHII", first)
        if version != _VERSION or not is_set:
            return head, None
        checksum = b"".join(part.to_bytes(4, "big") for part in struct.unpack_from("=II", first, 24))
        (copied,) = struct.unpack_from("=I", head, 96)
        (attempted,) = struct.unpack_from("=I", head, 128)
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        return first, LogState(first[32:40], frames, checksum, page_bytes, copied, attempted)

    def _holds(self, state: LogState) -> bool:
        """Say whether the log has the last frame that the index speaks of, by the checksum over all before it."""
        if not state.frames:
            return True
        head = os.pread(self._log, _LOG_HEADER_BYTES, 0)
        at = _LOG_HEADER_BYTES + (state.frames - 1) * (_FRAME_HEADER_BYTES + state.page_bytes)
        frame = os.pread(self._log, _FRAME_HEADER_BYTES, at)
        is_whole = os.fstat(self._log).st_size >= at + _FRAME_HEADER_BYTES + state.page_bytes
        return is_whole and head[16:24] == frame[8:16] == state.salt and frame[16:24] == state.checksum


def _stamp(number: int) -> Stamp:
    found = os.fstat(number)
    return found.st_size, found.st_mtime_ns


def _is_idle(before: LogState | None, now: LogState | None) -> bool:
    """Say that no checkpoint has run in between, nor may one be running or have been broken off."""
    if before is None or now is None or now.attempted > now.copied:
        return False
    return _copies(before) == _copies(now)


def _copies(state: LogState | None) -> tuple[bytes, int, int] | None:
    """Return what changes with each checkpoint, at its begin and at its end."""
    return None if state is None else (state.salt, state.copied, state.attempted)


def _checksum(data: bytes) -> bytes:
    """Return what SQLite writes behind the header of the index."""
    first = second = 0
    words = struct.unpack(f"={len(data) // 4}I", data)
    for left, right in zip(words[::2], words[1::2], strict=True):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return struct.pack("=II", first, second)
