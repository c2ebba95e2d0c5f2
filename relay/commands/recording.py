"""What `relay serve --replay` plays: the recording behind its flags, and the moment at which it begins."""

import logging
from collections.abc import Mapping, Sequence

import orjson

from relay.commands.formatting import moment
from relay.commands.recorded_files import candles_of, recorded_file
from relay.core.errors import ConfigError
from relay.core.intervals import INTERVALS, next_open
from relay.core.model import Instrument, ProviderInfo
from relay.instruments.saved_list import read_rows
from relay.plugins.hookspecs import API_VERSION
from relay.storage.recorded_candles import RecordedCandles, open_recorded, take_in
from relay.telemetry.events import event

log = logging.getLogger(__name__)


def open_recording(names: Sequence[str]) -> RecordedCandles:
    """Open the database, or take in the files, that flags name. Raises `ConfigError` or `StoreError`."""
    files = [recorded_file(name) for name in names]
    databases = [file for file in files if file.is_database]
    if databases and len(files) > 1:
        raise ConfigError("--replay takes one database, or one or more files; name the database alone")
    if databases:
        recording = open_recorded(str(databases[0].path))
    else:
        names = ", ".join(str(file.path) for file in files)
        log.info("reading %s", names, extra=event("recording_read"))
        recording = take_in(candles_of(files), names)
    if not recording.streams:
        recording.close()
        raise ConfigError(f"--replay {recording.name}: there are no candles in it")
    return recording


def bounds_of(recording: RecordedCandles) -> tuple[int, int]:
    """Return when the first recorded candle opened, and when the last one was over, in Unix seconds."""
    streams = [(key, bounds) for streams in recording.streams.values() for key, bounds in streams.items()]
    return (
        min(bounds.first for _, bounds in streams),
        max(next_open(key.interval, bounds.last) for key, bounds in streams),
    )


def start_of(recording: RecordedCandles, wanted: int | None) -> int:
    """Return when a replay begins: by default with the first candle. Raises `ConfigError` outside of the recording."""
    first, end = bounds_of(recording)
    if wanted is not None and not first <= wanted < end:
        where = "before the recording begins" if wanted < first else "after the recording ends"
        raise ConfigError(f"--from {moment(wanted)} is {where}; it has candles from {moment(first)} to {moment(end)}")
    return first if wanted is None else wanted


def instruments_of(recording: RecordedCandles, provider: str) -> Mapping[str, Instrument]:
    """Return what a recorded relay knew of a provider's instruments, by symbol; nothing where it noted nothing."""
    body = recording.document(f"instruments:{provider}")
    if body is None:
        return {}
    try:
        classes = tuple({row[1] for row in orjson.loads(body)})
        found = read_rows(body, ProviderInfo(provider, API_VERSION, provider, classes, INTERVALS))
    except (ValueError, TypeError, LookupError):
        return {}
    symbols = {key.symbol for key in recording.streams[provider]}
    return {
        # Extras are for the provider's own protocol, in which candles without its texts cannot be given.
        one.symbol: one
        if one.extras is None or recording.has_texts(provider, one.symbol)
        else one._replace(extras=None)
        for one in found
        if one.symbol in symbols
    }
