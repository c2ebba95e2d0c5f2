"""Where a subscriber is in its streams when it has read all that it was sent by now. No I/O."""

from relay.protocol.positions import ToldRevision, tag_of, written
from relay.streams.subscriptions import Subscriber


def position_of(subscriber: Subscriber, revision: ToldRevision) -> bytes:
    """Return what a subscriber resumes by; empty as long as it has no stream. `revision` is the newest that was told.

    Members of a group are at the same place: all that differs is where one was in streams that it still resumes, and
    in which it has less than it asked for. It is nowhere in those: it begins them anew.
    """
    told_to, newest = [], revision.number
    for stream, channel in subscriber.subscriptions.items():
        if stream not in subscriber.pending:
            told_to.append((tag_of(stream.provider, stream.key), max(stream.told_to, channel.floor, 0)))
        if channel.behind:
            # They are told later.
            newest = min(newest, channel.behind_from - 1)
    known: ToldRevision | None = revision._replace(number=newest)
    resumed = subscriber.resumed
    if resumed is not None:
        told_to += resumed.told_to.items()
        # Of those streams nothing was told yet: a number of another store stays, by which all that is known is told.
        if resumed.revision is None or resumed.revision.store != revision.store or resumed.revision.number < newest:
            known = resumed.revision
    if not told_to and not subscriber.pending:
        return b""
    return written(told_to, known if known is not None and known.number >= 0 else None)
