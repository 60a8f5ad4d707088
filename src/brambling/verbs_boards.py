"""The verb ``boards``: what there is, and which network of the zoo fits on what."""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from brambling import api, zoo
from brambling.boards.parts import BOARDS, PARTS, Board, Part
from brambling.errors import ConfigError, DoesNotFit, UnsupportedLayer
from brambling.network import Network
from brambling.sim.progress import Progress, progress_bar

__all__ = ["Fit", "add_parser", "boards_verb", "fit", "fits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether a network fits on a part when it is made as small as it can be.

    Parameters
    ----------
    luts, blocks, dsps
        What the smallest plan takes, estimated; ``None`` where there is none.
    why
        What stands against it.
    """

    network: str
    part: str
    luts: int | None = None
    blocks: int | None = None
    dsps: int | None = None
    why: str = ""

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.luts is not None


def fit(network: Network, part: Part) -> Fit:
    """Plan ``network`` for the least area of ``part``."""
    board = Board.bare(part)
    try:
        plan = api.plan(network, board, "min-area")
    except (DoesNotFit, UnsupportedLayer, ConfigError) as error:
        return Fit(network=network.name, part=part.name, why=str(error))
    needs = api.total(network, plan, board)
    return Fit(
        network=network.name,
        part=part.name,
        luts=needs.luts,
        blocks=needs.blocks,
        dsps=needs.dsps,
    )


def fits(networks: Iterable[Network], parts: Iterable[Part], tell: Progress) -> list[Fit]:
    """Try every network on every part."""
    pairs = [(network, part) for part in parts for network in networks]
    found = []
    for done, (network, part) in enumerate(pairs):
        tell("networks on parts", done, len(pairs))
        found.append(fit(network, part))
    return found


# The command line ---------------------------------------------------------------------------------


def add_parser(add: Callable[..., argparse.ArgumentParser], *parents: Any) -> None:
    """Add the verb with its arguments."""
    verb = add("boards", boards_verb, *parents)
    verb.add_argument(
        "--fits",
        action="store_true",
        help="plan every network of the zoo for the least area of every part: takes minutes",
    )


def boards_verb(args: argparse.Namespace) -> int:
    """List the boards and bare parts that designs can be made for."""
    found: list[Fit] = []
    if args.fits:
        networks = [zoo.load(name) for name in zoo.names()]
        with progress_bar() as tell:
            found = fits(networks, PARTS.values(), tell)
    if args.json:
        print(json.dumps(to_json(found), indent=2))
        return 0
    console = Console()
    console.print(boards_table())
    if found:
        console.print(fits_table(found))
        console.print("Look-up tables of the smallest plan, in % of the part; – does not fit.")
    return 0


def to_json(found: Iterable[Fit]) -> dict[str, Any]:
    """Return boards, parts and what fits, as JSON has them."""
    return {
        "boards": [board_row(board) for board in BOARDS.values()],
        "parts": [part_row(part) for part in PARTS.values()],
        "fits": [{**asdict(row), "fits": row.fits} for row in found],
    }


def board_row(board: Board) -> dict[str, Any]:
    """Return what there is to say of a board."""
    return {
        "name": board.name,
        "title": board.title,
        "part": board.part.name,
        "clock_hz": board.clock_hz,
        "oscillator_hz": board.oscillator_hz,
        "links": {link.kind: {"baud": link.baud, "at": link.wiring} for link in board.links},
        "built_here": board.built_here,
        "notes": list(board.notes),
    }


def part_row(part: Part) -> dict[str, Any]:
    """Return what a part has."""
    return {
        "name": part.name,
        "family": part.family,
        "luts": part.luts,
        "lut_inputs": part.lut_inputs,
        "ffs": part.ffs,
        "blocks": part.blocks,
        "block_kind": part.block_kind,
        "block_bits": part.block_bits,
        "spram_bits": part.spram_bits,
        "dsps": part.dsps,
        "clock_hz": part.clock_hz,
        "built_here": bool(part.nextpnr),
    }


def boards_table() -> Table:
    """Make a row a board, then a row a bare part."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("board", "part"):
        table.add_column(column, no_wrap=True)
    for column in ("LUTs", "RAM kbit", "DSP", "MHz"):
        table.add_column(column, justify="right")
    for column in ("links", "bitstream"):
        table.add_column(column)
    rows = [*BOARDS.values(), *map(Board.bare, PARTS.values())]
    for board in rows:
        part = board.part
        bits = part.blocks * part.block_bits + part.spram_bits
        table.add_row(
            board.name,
            part.name if board.platform else "the part alone",
            f"{part.luts:,}",
            f"{bits // 1024:,}",
            str(part.dsps),
            f"{board.clock_hz / 1e6:g}",
            ", ".join(link.kind for link in board.links) or "–",
            made(board),
        )
    return table


def made(board: Board) -> str:
    """Say how far the open tools go with a board."""
    if not board.built_here:
        return "by Vivado"
    return "here" if board.platform else "figures only"


def fits_table(found: Iterable[Fit]) -> Table:
    """Make a row a network, a column a part."""
    rows = {(row.network, row.part): row for row in found}
    parts = dict.fromkeys(part for _, part in rows)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    table.add_column("fits", no_wrap=True)
    for part in parts:
        table.add_column(part, justify="right")
    for network in dict.fromkeys(network for network, _ in rows):
        table.add_row(network, *(share(rows[network, part]) for part in parts))
    return table


def share(row: Fit) -> str:
    """Return the look-up tables that a plan takes, in %."""
    if row.luts is None:
        return "–"
    return f"{100 * row.luts / PARTS[row.part].luts:.0f}"
