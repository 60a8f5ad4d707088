"""What is said of a network that does not fit: the numbers, and the smallest change that would."""

from math import ceil

from brambling.boards.goals import Goal
from brambling.boards.memories import Needs
from brambling.boards.options import Options, available, excess
from brambling.boards.parts import BOARDS, PARTS, Board, Part
from brambling.boards.search import Search
from brambling.errors import DoesNotFit
from brambling.network import Network

__all__ = ["no_fit", "refusal"]


def refusal(
    what: str, board: Board, need: Needs, most: Needs, remedy: str, fill: float
) -> DoesNotFit:
    """Say of which resource by far too much is needed."""
    luts = f"LUTs ({fill:.0%} of {board.part.luts:,})"
    rows = [
        ("block RAMs", need.blocks, most.blocks),
        (luts, need.luts, most.luts),
        ("multipliers", need.dsps, most.dsps),
        ("SPRAMs", need.sprams, most.sprams),
    ]
    name, needed, left = max(rows, key=lambda row: row[1] / max(row[2], 1))
    return DoesNotFit(what, board.name, name, needed, max(0, left), remedy)


def no_fit(network: Network, search: Search, goal: Goal, clock_hz: int, most: Needs) -> DoesNotFit:
    """Say what is exceeded, and name the smallest change that would fit, where there is one."""
    options, what = search.options, network.name
    if goal.rate is not None:
        fastest = search.fastest(most)
        if fastest is not None:
            cycles = options.polish.slowest(fastest)
            limit = min(options.intervals[-1], int(clock_hz / goal.rate))
            remedy = (
                f"the fastest folding that fits has an interval of {cycles} cycles: "
                f"{goal.kind}={clock_hz // cycles}"
            )
            what += f" with goal {goal.text}"
            need = _nearest(network, options, limit, most)
            return refusal(what, options.board, need, most, remedy, options.fill)
    need = _nearest(network, options, options.intervals[-1], most)
    kept = excess(available(options.board, Needs(), options.fill), most)  # For what is beside.
    remedy = _remedy(network, options, need + kept, kept)
    return refusal(what, options.board, need, most, remedy, options.fill)


def _nearest(network: Network, options: Options, limit: int, most: Needs) -> Needs:
    """Return about the least that is needed, of all foldings, however large."""
    every = Options.of(network, options.board, options.fill, pruned=False)
    return Search(every).nearest(limit, most)


def _remedy(network: Network, options: Options, need: Needs, kept: Needs) -> str:
    """Name a larger share of the LUTs, or a larger part, for all with what is ``kept`` free."""
    part, fill = options.board.part, options.fill
    if excess(need, available(options.board, Needs(), 1.0)) == Needs():
        share = ceil(100 * need.luts / part.luts)
        return f"no folding fits: with a fill of {share / 100:g} one would"
    larger = _larger(network, part, fill, kept)
    if larger is None:
        return "no folding fits, nor any part that is known: choose a smaller network"
    boards = [board.name for board in BOARDS.values() if board.part == larger]
    on = f" ({', '.join(boards)})" if boards else ""
    return f"no folding fits: the next larger part that does is {larger.name}{on}"


def _larger(network: Network, part: Part, fill: float, kept: Needs) -> Part | None:
    """Return the next larger part that a network fits, of the same family where there is one."""
    larger = [p for p in PARTS.values() if p.luts > part.luts or p.blocks > part.blocks]
    for other in sorted(larger, key=lambda p: (p.family != part.family, p.luts)):
        memory = other.spram_bits + fill * other.luts * 2**other.lut_inputs
        memory += other.blocks * other.block_bits
        if network.weight_bits > memory:
            continue
        board = Board(name=other.name, part=other, clock_hz=1)
        search = Search(Options.of(network, board, fill))
        most = available(board, kept, fill)
        if search.within(search.options.intervals[-1], most) is not None:
            return other
    return None
