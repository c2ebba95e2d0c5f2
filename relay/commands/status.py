"""`relay status`: what a running relay says about itself, once or again and again."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.client import ClientError, RelayClient
from relay.commands.formatting import json_line, printable
from relay.commands.narrow_table import left_out_line
from relay.commands.run_client import call, relay_options, shows_table
from relay.commands.status_format import GOOD, Section, sorted_out

_BAD = {"error", "failed", "refused"}


@click.command("status", short_help="Show the state of a running relay.")
@click.option("--watch", is_flag=True, help="Update the display until Ctrl-C.")
@click.option("--every", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds, for --watch.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the relay as JSON, one line each time.")
@relay_options
def command(watch: bool, every: float, as_json: bool, url: str, token: str | None) -> None:
    """Show providers, connections, streams, budgets and clients of a running relay.

    \b
    Examples:
      relay status
      relay status --watch
      relay status --json | jq '.streams[] | select(.status != "connected")'
    """

    async def work(client: RelayClient) -> None:
        answer = await client.status()
        if watch and not as_json and shows_table():
            await _watch(client, answer, every)
            return
        show = _print_json if as_json else _print_table if shows_table() else _print_lines
        show(answer)
        while watch:
            await asyncio.sleep(every)
            await _show_next(client, show)

    call(url, token, work)


async def _show_next(client: RelayClient, show: Callable[[dict[str, Any]], None]) -> None:
    try:
        answer = await client.status()
    except ClientError as fault:
        click.echo(f"relay: {printable(str(fault))}", err=True)
    else:
        show(answer)


async def _watch(client: RelayClient, answer: dict[str, Any], every_s: float) -> None:
    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        trouble = ""
        while True:
            head = Text(f"relay {client.url}  every {every_s:g} s, Ctrl-C ends", "dim")
            lines: list[RenderableType] = [head, _picture(answer, live.console.width)]
            if trouble:
                lines.insert(1, Text(f"the values below are old: {trouble}", "bold red"))
            live.update(Group(*lines), refresh=True)
            await asyncio.sleep(every_s)
            try:
                answer, trouble = await client.status(), ""
            except ClientError as fault:
                trouble = printable(str(fault))


def _print_json(answer: dict[str, Any]) -> None:
    click.echo(json_line(answer))


def _print_table(answer: dict[str, Any]) -> None:
    console = Console()
    console.print(_picture(answer, console.width))


def _print_lines(answer: dict[str, Any]) -> None:
    click.echo("\n".join([*lines_of(answer), ""]))


def lines_of(answer: dict[str, Any]) -> list[str]:
    """Return an answer of the relay as it is printed where no terminal is."""
    facts, sections = sorted_out(answer)
    lines = [f"{name}: {value}" for name, value in facts]
    for section in sections:
        lines += ["", f"{section.title}:" if section.rows else f"{section.title}: none"]
        columns = section.columns + (["message"] if any(section.notes) else [])
        rows = [[*row, note] for row, note in zip(section.rows, section.notes, strict=True)]
        widths = [max(len(column), *(len(row[place]) for row in rows)) for place, column in enumerate(columns)]
        for row in [columns, *rows] if rows else []:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            lines.append("  ".join(["", *cells]).rstrip())
    return lines


def _picture(answer: dict[str, Any], width: int) -> Group:
    facts, sections = sorted_out(answer)
    lone = [fact for fact in facts if ", " not in fact[1]]
    parts: list[RenderableType] = [Text("  ").join(Text.assemble((f"{name} ", "dim"), value) for name, value in lone)]
    parts += [Text.assemble((f"{name} ", "dim"), value) for name, value in facts if (name, value) not in lone]
    for section in sections:
        parts.append(Text(f"\n{section.title}{'' if section.rows else ': none'}", "bold"))
        if section.rows:
            parts += _table(section, width)
    return Group(*parts)


def _table(section: Section, width: int) -> Iterator[RenderableType]:
    """Yield the columns that fit, and the names of the others."""
    widths = [
        max(len(column), *(len(row[place]) for row in section.rows)) + 2 for place, column in enumerate(section.columns)
    ]
    note_width = min(16, max(map(len, section.notes))) if any(section.notes) else 0
    shown = len(widths)
    while shown > 2 and sum(widths[:shown]) + note_width > width:
        shown -= 1
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, column in enumerate(section.columns[:shown]):
        is_number = all(_is_number(row[place]) for row in section.rows)
        table.add_column(column.replace("_", " "), justify="right" if is_number else "left", no_wrap=True)
    if note_width:
        table.add_column("message", overflow="fold")
    for row, note in zip(section.rows, section.notes, strict=True):
        cells = [
            Text(cell, _colour(cell) if column in {"state", "status"} else "")
            for column, cell in zip(section.columns[:shown], row, strict=False)
        ]
        table.add_row(*cells, *([Text(note, "dim")] if note_width else []))
    yield table
    if left_out := [column.replace("_", " ") for column in section.columns[shown:]]:
        yield left_out_line(left_out)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[\d.]*(ms|s)?", text) is not None


def _colour(text: str) -> str:
    return "green" if text in GOOD else "red" if text in _BAD else "yellow" if text else ""
