"""The verbs ``build``, ``load`` and ``doctor``: bitstreams, and the tools that make them."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from brambling.arguments import BOARD
from brambling.errors import ConfigError

if TYPE_CHECKING:
    from brambling.boards.doctor import Check
    from brambling.boards.reports import Built

__all__ = ["add_arguments", "add_parser", "build_verb", "doctor_verb", "load_verb", "offer_build"]

LINKS = ("uart", "spi")
MOST_SEEDS = 64


def clock_of(text: str) -> float | str:
    """Read a clock in MHz, as Hz; or ``auto``."""
    if text == "auto":
        return text
    value = float(text) * 1e6
    if not 1 <= value < 1e9:
        raise ValueError(text)
    return float(round(value))


def count(text: str) -> int:
    """Read how many there are to be: at least one."""
    value = int(text)
    if not 1 <= value <= MOST_SEEDS:
        raise ValueError(text)
    return value


def add_tools(verb: argparse.ArgumentParser) -> None:
    """Add the argument that names tools."""
    verb.add_argument(
        "--tool",
        action="append",
        default=[],
        dest="tools",
        metavar="NAME=COMMAND",
        help="use this program: yosys, nextpnr-ecp5, …; may be given several times",
    )


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``build``, but for model and plan."""
    verb.add_argument(
        "--clock",
        type=clock_of,
        metavar="MHZ",
        help="clock to reach (default: the plan's); auto: the highest that is reached",
    )
    verb.add_argument(
        "--seeds",
        type=count,
        metavar="N",
        help="seeds of place and route, the best is taken (default: processors, at most 4)",
    )
    verb.add_argument(
        "--jobs", type=count, metavar="N", help="seeds at a time (default: all processors)"
    )
    verb.add_argument(
        "--link", choices=LINKS, default="uart", help="how the host speaks to it (default uart)"
    )
    verb.add_argument(
        "--no-selftest",
        action="store_true",
        help="leave out the frame and its result that the board tries when it starts",
    )
    verb.add_argument(
        "--part-only",
        action="store_true",
        help="of the board its part alone: size and clock, no pins and no bitstream",
    )
    verb.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to build it")
    verb.add_argument("--load", action="store_true", help="then load it into the board")
    add_tools(verb)


def add_parser(
    add: Callable[..., argparse.ArgumentParser],
    model: argparse.ArgumentParser,
    folded: argparse.ArgumentParser,
    machine: argparse.ArgumentParser,
) -> None:
    """Add the verbs; ``add(name, run, *parents)`` makes a parser of one."""
    add_arguments(add("build", build_verb, model, folded, machine))
    verb = add("load", load_verb)
    verb.add_argument("file", type=Path, help="a bitstream that build has made")
    verb.add_argument("--board", required=True, metavar="B", help="the board that it is for")
    add_tools(verb)
    add_tools(add("doctor", doctor_verb, machine))


# Progress -----------------------------------------------------------------------------------------


@contextmanager
def job_lines(console: Console | None = None) -> Iterator[Callable[[str, str], None]]:
    """Show on standard error a line for each job: what it does, and since when; gone at the end."""
    console = console or Console(file=sys.stderr)
    lines = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("[dim]{task.fields[what]}[/]"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    jobs: dict[str, TaskID] = {}

    def tell(job: str, what: str) -> None:
        if job not in jobs:
            jobs[job] = lines.add_task(escape(job), what="", total=None)
        lines.update(jobs[job], what=escape(what))

    if not console.is_terminal:
        yield tell
        return
    with lines:
        yield tell


# Verbs --------------------------------------------------------------------------------------------


def build_verb(args: argparse.Namespace) -> int:
    """Build a bitstream with open tools: synthesis, place and route, and what it takes."""
    # Not at the top: the command line imports this module.
    from brambling import cli
    from brambling.api import LUT_SHARE, link_needs
    from brambling.boards.build import build
    from brambling.boards.memories import Needs
    from brambling.boards.parts import Board, find_board
    from brambling.boards.tools import find, named_tools
    from brambling.hw.accelerator import pipeline
    from brambling.sim.cycles import schedule
    from brambling.vectors import random_vectors

    tools = named_tools(args.tools)
    network = cli.load_model(args)
    args.clock_mhz = None
    if args.plan is None and isinstance(args.clock, float):
        args.clock_mhz = args.clock / 1e6  # What is planned for fps=N depends on it.
    if args.part_only and args.load:
        raise ConfigError("--part-only makes no bitstream: leave out --load")
    wanted = find_board(args.board or BOARD)
    beside = Needs() if args.part_only else link_needs(network, wanted, args.fill or LUT_SHARE)
    made_plan = cli.plan_of(network, args, beside)
    board = find_board(made_plan.board)
    if args.part_only:
        board = Board.bare(board.part)
    if args.load:
        find("openFPGALoader", tools)  # To be told now, not after the build.
    folder = args.output or Path(f"{network.name}-{board.name}")
    with job_lines() as tell:
        built = build(
            network,
            made_plan,
            board,
            folder,
            clock=args.clock,
            seeds=None if args.seeds is None else range(1, args.seeds + 1),
            jobs=args.jobs,
            link=args.link,
            selftest=None if args.no_selftest else random_vectors(network),
            interval=schedule(pipeline(network, made_plan), 8).interval,
            tools=tools,
            tell=tell,
        )
    if args.json:
        print(json.dumps(built.to_json(), indent=2))
    else:
        show_built(Console(), built)
    if args.load and built.bitstream is not None:
        load(built.bitstream, built.board, tools)
    return 0


def load_verb(args: argparse.Namespace) -> int:
    """Load a bitstream into a board that is plugged in."""
    from brambling.boards.tools import named_tools

    load(args.file, args.board, named_tools(args.tools))
    return 0


def load(path: Path, board_name: str, tools: dict[str, str]) -> None:
    """Load a bitstream by openFPGALoader, which shows its own progress."""
    from brambling.boards.loading import load_bitstream
    from brambling.boards.parts import find_board

    with job_lines() as tell:
        load_bitstream(path, find_board(board_name), tools, tell)
    Console(stderr=True).print(f"{path.name}: loaded into {board_name}", highlight=False)


def doctor_verb(args: argparse.Namespace) -> int:
    """List the tools found, their versions, what is missing and the command that installs it."""
    from brambling.boards.doctor import checks
    from brambling.boards.tools import named_tools

    found = checks(named_tools(args.tools))
    if args.json:
        print(json.dumps([asdict(check) | {"fine": check.fine} for check in found], indent=2))
    else:
        show_checks(Console(), found)
    return 0


def offer_build(command: Sequence[str]) -> bool:
    """Say how to go on to a bitstream; on a terminal ask whether to. Never ask elsewhere."""
    console = Console()
    line = shlex.join(["brambling", *command])
    console.print(f"bitstream     {escape(line)}", highlight=False, soft_wrap=True)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        answer = input("Build it now? It takes minutes, and needs the tools of `doctor`. [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}


# Tables -------------------------------------------------------------------------------------------


def plain_table(columns: str) -> Table:
    """Return an empty table; its first column is to the left, the others to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for n, column in enumerate(columns.split(" | ")):
        table.add_column(column, justify="right" if n else "left")
    return table


def show_built(console: Console, built: "Built") -> None:
    """Print what a design takes, its clocks, and where the bitstream is."""
    from brambling.boards.reports import clock_rows, mhz, resource_rows, verdict

    link = f" over {built.link}" if built.link else ""
    console.print(
        f"[bold]{escape(built.network)}[/] on {built.board} ({built.part}, {built.goal}){link}, "
        f"placed and routed",
        highlight=False,
    )
    table = plain_table("resource | used | available | share | planned | deviation")
    for row in resource_rows(built):
        table.add_row(*row)
    console.print(table)
    clocks = plain_table("clock | needed, MHz | routed, MHz | slack, ns")
    for name, *numbers in clock_rows(built):
        clocks.add_row(escape(name), *numbers)
    console.print(clocks)
    console.print(
        "[dim]planned: the planner's estimate of the accelerator, without link and PLL[/]"
    )
    for key, value in facts(built, mhz, verdict(built)):
        console.print(f"{key:13} {escape(value)}", highlight=False, soft_wrap=True)


def facts(
    built: "Built", mhz: Callable[[float | None], str], verdict: str
) -> Iterator[tuple[str, str]]:
    """Yield what is told below the tables."""
    from brambling.boards.reports import hold_words

    yield "clock", f"{built.clock_hz / 1e6:g} MHz, routed for {mhz(built.fmax_hz)} MHz"
    last = [attempt for attempt in built.attempts if attempt.clock_hz == built.clock_hz][-1]
    seeds = ", ".join(f"{seed.seed}: {mhz(seed.fmax_hz)}" for seed in last.seeds)
    yield "seeds, MHz", f"{seeds}; {built.seed} is taken"
    if built.holds or built.holds_excused:
        yield "hold times", hold_words(built)
    seconds = sum(step.usage.seconds for step in built.steps if step.usage)
    yield "time", f"{seconds:,.0f} s of all steps together"
    yield "tools", ", ".join(f"{name} {version}" for name, (version, _) in built.tools.items())
    yield "report", str(built.folder / "report.md")
    yield "bitstream", str(built.bitstream or verdict)


def show_checks(console: Console, found: tuple["Check", ...]) -> None:
    """Print a row for each program and package, then what is wrong and what would mend it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "what", "version", "needed for", "where"):
        table.add_column(column)
    for check in found:
        mark = "[green]✓[/]" if check.fine else "[red]✗[/]"
        # Its name is that of a row below.
        origin = "package" if check.origin.startswith("package ") else check.origin
        table.add_row(mark, check.name, check.version, check.needed_for, escape(origin))
    console.print(table)
    bad = [check for check in found if not check.fine]
    for check in bad:
        console.print(f"{check.name}: {escape(check.problem)}", highlight=False, soft_wrap=True)
    remedies = list(dict.fromkeys(check.remedy for check in bad if check.remedy))
    if not bad:
        console.print("all is there", highlight=False)
    elif remedies:
        console.print("commands that mend it:", highlight=False)
    for remedy in remedies:
        console.print(f"  {escape(remedy)}", highlight=False, soft_wrap=True)
