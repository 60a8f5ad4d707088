"""The verb ``gates``: what synthesis made of an accelerator, simulated and compared."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from brambling.errors import ConfigError
from brambling.sim.progress import progress_bar
from brambling.verbs_build import add_tools

if TYPE_CHECKING:
    from brambling.sim.gates import Gates

__all__ = ["add_parser", "gates_verb", "show_gates"]

FRAMES = 5  #: Where not more are asked for: a netlist is simulated slowly.


def add_parser(
    add: Callable[..., argparse.ArgumentParser], *parents: argparse.ArgumentParser
) -> None:
    """Add the verb; ``add(name, run, *parents)`` makes a parser of one."""
    verb = add("gates", gates_verb, *parents)
    verb.add_argument(
        "--frames", type=int, default=FRAMES, metavar="N", help=f"images (default {FRAMES})"
    )
    add_tools(verb)


def gates_verb(args: argparse.Namespace) -> int:
    """Synthesise, and simulate the netlist: every result, every cycle, against both models."""
    # Not at the top: the command line imports this module.
    from brambling import cli
    from brambling.boards.family import FLOWS, synthesis_of
    from brambling.boards.parts import find_board
    from brambling.boards.tools import find, named_tools
    from brambling.sim.gates import gates

    if args.frames < 1:
        raise ConfigError(f"--frames must be at least 1, not {args.frames}")
    yosys = find("yosys", named_tools(args.tools))
    network = cli.load_model(args)
    plan = cli.plan_of(network, args)
    part = find_board(plan.board).part
    if part.family not in FLOWS:
        raise ConfigError(
            f"{part.name}: gates must be of ecp5, ice40 or gowin, not {part.family}: "
            "no models of its cells"
        )
    images, _ = cli.images_of(network, args)
    with progress_bar() as tell:
        result = gates(
            network,
            plan,
            images[: args.frames],
            family=part.family,
            synthesis=synthesis_of(part),
            yosys=yosys.command,
            progress=tell,
        )
    if args.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        show_gates(Console(), result)
    return 0


def show_gates(console: Console, result: "Gates") -> None:
    """Print what was compared, and the cells that it was made of."""
    table = Table("cell", "count", title=f"{result.network}, netlist for {result.family}")
    table.columns[1].justify = "right"
    for name, count in result.cells.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    console.print(
        f"{result.frames:,} frames in {len(result.situations)} situations "
        f"({', '.join(result.situations)}): {result.beats_compared:,} beats, all of them with the "
        "golden value and in the predicted cycle",
        highlight=False,
    )
