"""`relay store`: what the database holds, whether it is right, a copy of it, what is to be forgotten, free pages."""

import asyncio
import random
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click
import orjson

from relay.app import load_plugins
from relay.commands.distribution import Distribution
from relay.commands.formatting import moment, printable
from relay.config.given_settings import load_config, outward_proxies
from relay.config.settings import Config
from relay.core.clock import Clock, ProviderClock
from relay.core.errors import ConfigError, StoreError
from relay.core.saved_value import Memory
from relay.history.sample_check import Compared, Sample, compare, draw_samples
from relay.plugins.provider import Provider
from relay.server.event_loop import without_stragglers
from relay.storage.backup import Backup, back_up
from relay.storage.inspect import (
    Forgotten,
    Overview,
    StoredStream,
    cut_future,
    forget,
    overview,
    reading,
    vacuum,
)
from relay.storage.set_aside import CHECKING, aside_name, is_aside, original
from relay.storage.verify import Verified, verify
from relay.telemetry.logs import set_up_logs

_GAPS_SHOWN = 10
_UNITS = ("B", "KB", "MB", "GB", "TB")


class StoreReport(NamedTuple):
    """What a run found out; None is what was not asked for."""

    name: str
    overview: Overview
    verified: Verified | None
    compared: Sequence[Compared] | None
    repaired: Sequence[str] = ()
    forgotten: Sequence[Forgotten] = ()
    backup: Backup | None = None

    @property
    def is_clean(self) -> bool:
        """Say whether nothing wrong was found, and everything asked for was looked at."""
        can_be_read = all(stream.is_readable for stream in self.overview.streams)
        has_faults = self.verified is not None and self.verified.faults
        return can_be_read and not has_faults and all(one.is_equal for one in self.compared or ())


@click.command("store", short_help="Show, check, back up and shrink the database.")
@click.option("--database", type=click.Path(), metavar="FILE", help="The file.  [default: relay.db]")
@click.option("--config", "file", type=click.Path(), metavar="FILE", help="Configuration file of `relay serve`.")
@click.option("--check", is_flag=True, help="Compare rows, known spans and encoded candles with each other.")
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Compare N random known parts with the providers, too.",
)
@click.option("--seed", type=int, metavar="N", help="Seed of the random choice; the same seed chooses the same parts.")
@click.option("--repair", "repairs", is_flag=True, help="First delete what lies in the future; then --check.")
@click.option(
    "--forget",
    "names",
    multiple=True,
    metavar="SYMBOL[@INTERVAL]",
    help="First delete all that is stored for a symbol.",
)
@click.option(
    "--backup", "target", type=click.Path(), metavar="FILE", help="First copy the database into FILE, a new file."
)
@click.option("--vacuum", "shrinks", is_flag=True, help="First give free pages back to the disk.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.pass_obj
@without_stragglers()
def command(
    distribution: Distribution,
    database: str | None,
    file: str | None,
    check: bool,
    sample: int | None,
    seed: int | None,
    repairs: bool,
    names: tuple[str, ...],
    target: str | None,
    shrinks: bool,
    as_json: bool,
) -> None:
    """Show the content of the database, also while a relay uses it: size, streams, known spans, gaps.

    The settings are those of `relay serve`. The exit code of --check and --sample is 1 if something is wrong. Each
    sample is one call to a provider, of at most 100 candles; at Twelve Data it costs a credit. --vacuum needs as much
    free disk space as the file is large; a relay that uses the file keeps new candles in memory meanwhile.

    Stop the relay before --repair and --forget: it remembers what is stored. --repair deletes candles and spans that
    lie more than ten minutes ahead of this machine's clock, which must be right.

    --backup makes one file that is whole, and complete up to its start, beside a relay that goes on writing. It comes
    before all else that is asked for. To restore it, stop the relay, delete its -wal and -shm, and put the copy in its
    place.

    --forget deletes the candles and known spans of a symbol; later requests get them from the provider again.
    provider:SYMBOL names the provider. Candles that were set aside have the name that the list shows.

    \b
    relay store
    relay store --check --database /var/lib/relay/candles.db
    relay store --check --sample 20
    relay store --repair
    relay store --backup /mnt/backup/relay.db
    relay store --forget LUNAUSDT@1h --vacuum
    """
    set_up_logs("critical", "text")
    try:
        config = load_config({"database": database, "insecure": True}, file=file)
        backup = back_up(config.database, target) if target else None
        repaired = cut_future(config.database, time.time()) if repairs else []
        forgotten = forget(config.database, names) if names else ()
        if shrinks:
            vacuum(config.database)
        checks = check or repairs
        report = _look(
            config, distribution, repaired, checks=checks, samples=sample or 0, randomness=random.Random(seed)
        )
        report = report._replace(forgotten=forgotten, backup=backup)
    except (ConfigError, StoreError) as error:
        click.echo(f"relay: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(orjson.dumps(_as_json(report), option=orjson.OPT_INDENT_2))
    else:
        for line in _lines(report):
            click.echo(line)
    if not report.is_clean:
        sys.exit(1)


def _look(
    config: Config,
    distribution: Distribution,
    repaired: Sequence[StoredStream],
    *,
    checks: bool,
    samples: int,
    randomness: random.Random,
) -> StoreReport:
    """Read the file, then ask the providers. Raises `ConfigError` and `StoreError`."""
    name, clock = config.database, Clock()
    providers: dict[str, Provider] = {}
    drawn: list[Sample] = []
    if samples:
        host = load_plugins(config, distribution.providers())
        proxies = outward_proxies(config)
        for known, loaded in host.loaded.items():
            providers[known] = host.bind(loaded, loaded.settings, ProviderClock(clock), proxies=proxies)
    with reading(name) as connection:
        found = overview(connection, name)
        verified = verify(connection, found.streams, time.time()) if checks else None
        if samples:
            drawn = draw_samples(connection, found.streams, samples, randomness)
            for provider in providers.values():
                provider.remember(_memory_of(connection, provider.name))
    compared = asyncio.run(compare(drawn, providers, clock)) if samples else None
    return StoreReport(name, found, verified, compared, [str(stream) for stream in repaired])


def _memory_of(connection: sqlite3.Connection, name: str) -> Memory:
    """Return what a provider saved, so that it keeps to its budget; what is spent now it learns from its answers."""
    row = connection.execute("SELECT body FROM documents WHERE name = ?", (f"memory:{name}",)).fetchone()
    return Memory(None if row is None else row[0])


# -- for people ------------------------------------------------------------------------------------


def _lines(report: StoreReport) -> Iterator[str]:
    found = report.overview
    candles = sum(stream.candles for stream in found.streams)
    if report.backup is not None:
        yield printable(f"copied to {report.backup.path}: {_size(report.backup.size)}")
    for one in report.forgotten:
        spans = _many(one.spans, "span")
        yield printable(f"forgot {one.provider} {one.key}: {_many(one.candles, 'candle')}, {spans}")
    yield (
        f"{report.name}: {_size(found.file_bytes)} on disk, {_size(found.free_bytes)} of it free;"
        f" schema version {found.version}; {_many(len(found.streams), 'stream')}, {_many(candles, 'candle')}"
    )
    rows = [("provider", "stream", "candles", "first", "last", "spans", "gaps")]
    for stream in found.streams:
        rows.append(
            (
                stream.provider,
                str(stream.key),
                f"{stream.candles:,}" if stream.is_readable else "unreadable",
                "-" if stream.first is None else moment(stream.first),
                "-" if stream.last is None else moment(stream.last),
                f"{len(stream.spans):,}",
                f"{len(stream.gaps()):,}",
            )
        )
    if found.streams:
        yield ""
        yield from _table([tuple(map(printable, row)) for row in rows], right={2, 5, 6})
        yield from _gap_lines([stream for stream in found.streams if not is_aside(stream.key.symbol)])
        yield from _aside_lines(found.streams)
    if report.repaired:
        yield ""
        for name in report.repaired:
            yield printable(f"REPAIRED  {name}: what lay in the future was deleted")
    if report.verified is not None:
        yield ""
        yield from _verified_lines(report.verified)
    if report.compared is not None:
        yield ""
        yield from _compared_lines(report.compared)


def _gap_lines(streams: Sequence[StoredStream]) -> Iterator[str]:
    for stream in streams:
        gaps = stream.gaps()
        for gap in gaps[-_GAPS_SHOWN:]:
            yield f"gap  {printable(str(stream))}  {moment(gap.start)} – {moment(gap.end)}"
        if len(gaps) > _GAPS_SHOWN:
            yield f"gap  {printable(str(stream))}  and {len(gaps) - _GAPS_SHOWN:,} before; --json has all"


def _aside_lines(streams: Sequence[StoredStream]) -> Iterator[str]:
    names = dict.fromkeys((stream.provider, stream.key.symbol) for stream in streams if is_aside(stream.key.symbol))
    for provider, name in names:
        symbol = original(name)
        what = f"set aside: {symbol} names another instrument now; to delete them: --forget {name}"
        if name == aside_name(symbol, CHECKING):
            what = f"a running relay checks whether {symbol} still names the same instrument"
        yield printable(f"aside  {provider} {name}  {what}")


def _verified_lines(verified: Verified) -> Iterator[str]:
    for fault in verified.faults:
        shown = ", ".join(_example(example) for example in fault.examples)
        more = ", …" if fault.times > len(fault.examples) else ""
        yield printable(f"FAULT  {fault.stream or 'file'}: {fault.what} ({fault.times:,}): {shown}{more}")
    looked = f"{_many(verified.candles, 'candle')}, {_many(verified.spans, 'span')}, {verified.chunks:,} encoded"
    yield f"checked {looked}: {_many(len(verified.faults), 'fault') if verified.faults else 'nothing wrong'}"


def _compared_lines(compared: Sequence[Compared]) -> Iterator[str]:
    for one in compared:
        stream, span, _ = one.sample
        where = f"{stream} {moment(span.start)} – {moment(span.end)}"
        if one.failure:
            yield printable(f"FAULT  {where}: could not be compared: {one.failure}")
        for what, times in (
            ("the provider has candles that are not stored", one.lacking),
            ("candles are stored that the provider does not have", one.unknown),
            ("values differ from the provider's", one.different),
        ):
            if times:
                yield printable(f"FAULT  {where}: {what} ({len(times):,}): {', '.join(map(moment, times[:5]))}")
    equal = sum(one.is_equal for one in compared)
    candles = sum(len(one.sample.candles) for one in compared)
    yield f"compared {_many(len(compared), 'part')} with {_many(candles, 'candle')} with the providers: {equal:,} equal"


def _table(rows: Sequence[tuple[str, ...]], right: set[int]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            text.rjust(width) if at in right else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _example(example: int | str) -> str:
    return moment(example) if isinstance(example, int) else example


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


# -- for programs ----------------------------------------------------------------------------------


def _as_json(report: StoreReport) -> dict[str, Any]:
    found = report.overview
    told: dict[str, Any] = {
        "database": report.name,
        "checked_at": int(time.time()),
        "schema_version": found.version,
        "file_bytes": found.file_bytes,
        "free_bytes": found.free_bytes,
        "encoded_bytes": found.chunk_bytes,
        "streams": [
            {
                "provider": stream.provider,
                "symbol": stream.key.symbol,
                "interval": stream.key.interval,
                "candles": stream.candles if stream.is_readable else None,
                "first": stream.first,
                "last": stream.last,
                "set_aside_of": original(stream.key.symbol) if is_aside(stream.key.symbol) else None,
                "spans": [{"from": span.start, "to": span.end} for span in stream.spans],
                "gaps": [{"from": gap.start, "to": gap.end} for gap in stream.gaps()],
            }
            for stream in found.streams
        ],
    }
    if report.backup is not None:
        told["backup"] = report.backup._asdict()
    if report.repaired:
        told["repaired"] = list(report.repaired)
    if report.forgotten:
        told["forgotten"] = [
            {"provider": one.provider, "symbol": one.key.symbol, "interval": one.key.interval}
            | {"candles": one.candles, "spans": one.spans}
            for one in report.forgotten
        ]
    if report.verified is not None:
        told["checked"] = {
            "candles": report.verified.candles,
            "spans": report.verified.spans,
            "encoded": report.verified.chunks,
            "faults": [fault._asdict() for fault in report.verified.faults],
        }
    if report.compared is not None:
        told["samples"] = [
            {
                "provider": one.sample.stream.provider,
                "symbol": one.sample.stream.key.symbol,
                "interval": one.sample.stream.key.interval,
                "from": one.sample.span.start,
                "to": one.sample.span.end,
                "candles": len(one.sample.candles),
                "lacking": one.lacking,
                "unknown": one.unknown,
                "different": one.different,
                "failure": one.failure or None,
            }
            for one in report.compared
        ]
    return told
